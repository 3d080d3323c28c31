using Workerd = import "/workerd/workerd.capnp";

# workerd serve bench_workerd.capnp --directory-path=disk=DIRECTORY --control-fd=1 prints the port as JSON.
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "disk", disk = (writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const worker :Workerd.Worker = (
  modules = [
    (name = "bench_workerd", esModule = embed "bench_workerd.mjs"),
    (name = "bench_share", esModule = embed "bench_share.mjs"),
    (name = "capnweb", esModule = embed "node_modules/capnweb/dist/index-workers.js"),
  ],
  compatibilityDate = "2026-11-01",
  durableObjectNamespaces = [(className = "Shares", uniqueKey = "shares")],
  durableObjectStorage = (inMemory = void),
  bindings = [
    (name = "disk", service = "disk"),
    (name = "shares", durableObjectNamespace = "Shares"),
  ],
);
