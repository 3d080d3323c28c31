"""``isinstance`` of the core's classes, whichever was asked for first."""

from rpcshare.rpc.members import BoundMethod, Function
from rpcshare.rpc.promises import PendingReference
from rpcshare.rpc.reference import Owner, Reference
from rpcshare.rpc.session import Session
from rpcshare.rpc.target import RpcTarget, rpc_method


class Greeter(RpcTarget):
    @rpc_method("greet()")
    def greet(self) -> str:
        return "hello"


def test_an_object_is_of_its_own_classes_and_of_no_other() -> None:
    session = Session()
    method = BoundMethod(Greeter.rpc_members["greet"], Greeter())  # type: ignore[arg-type]  # it is a Method
    bases: dict[type, object] = {Function: method, Owner: session, Reference: PendingReference(session)}
    for _ in range(2):  # the second time, what was asked before may be remembered
        for base in bases:
            of_it = [kind for kind, value in bases.items() if isinstance(value, base)]
            assert of_it == [base]
