"""What an idle WebSocket takes is what an idle connection takes, of which there may be ten thousand."""

import ast
import inspect

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from rpcshare.server.websocket_protocol import WebSocketProtocol


@pytest.mark.parametrize("kind", [WebSocketsSansIOProtocol, WebSocketProtocol])
def test_a_websocket_has_no_attribute_that_needs_a_dictionary(kind: type) -> None:
    nodes = ast.walk(ast.parse(inspect.getsource(kind)))
    names = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    assert names <= set(WebSocketProtocol.__slots__)
