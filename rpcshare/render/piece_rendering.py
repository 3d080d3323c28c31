"""Pieces as HTML. What takes hostile text, and may take it for longer than anybody waits, is below here."""

from collections.abc import Callable
from typing import Final

import msgspec
from markupsafe import Markup

from rpcshare.render.blocks import NORMAL, PLAIN, PLAIN_WHOLE, WHOLE, Bounds, Code
from rpcshare.render.code_and_prose import code
from rpcshare.render.diffs import DiffBlock, diff_of_file
from rpcshare.render.highlighting import language_of
from rpcshare.render.lenient_json import Fields
from rpcshare.render.parts import PartView, view_of_part
from rpcshare.render.pieces import Cause, CodePiece, Detail, FilePiece, PartPiece, Piece
from rpcshare.render.safe_text import visible
from rpcshare.render.templating import page_templates
from rpcshare.transcripts.opencode_changes import short_path

__all__ = ["PieceRendering"]

_SHOWN: Final = {Detail.UNCOLOURED: "Shown without colours", Detail.PLAIN: "Shown as plain text"}
_BECAUSE: Final = {
    Cause.TIME: "drawing it took too long",
    Cause.MEMORY: "drawing it took too much memory",
    Cause.SIZE: "it is too large when it is drawn",
    Cause.ERROR: "drawing it failed",
    Cause.PAGE: "drawing the whole page takes too long",
}


class PieceRendering:
    """Draws pieces."""

    def __init__(self) -> None:
        templates = page_templates()
        parts = templates.get_template("parts.html").module
        self._draw_part: Callable[[PartView, int, str], Markup] = parts.draw  # type: ignore[attr-defined]  # macros
        self._draw_code: Callable[[Code | None, int, str], Markup] = templates.get_template(
            "file_view.html"
        ).module.file_view  # type: ignore[attr-defined]
        self._draw_file: Callable[[DiffBlock, int, str], Markup] = parts.file_diff  # type: ignore[attr-defined]

    def draw(self, piece: Piece, detail: Detail = Detail.FULL, cause: Cause | None = None) -> Markup:
        """Return a piece as HTML, which says so if something is left out for a ``cause``."""
        bounds = _bounds(piece.is_whole, detail)
        remark = f"{_SHOWN[detail]}: {_BECAUSE[cause]}." if cause is not None else ""
        match piece:
            case PartPiece():
                fields = Fields.decode(piece.body)
                view = view_of_part(
                    fields,
                    piece.role,
                    piece.directory,
                    bounds,
                    is_over=piece.is_over,
                    content=piece.content,
                    contexts=piece.contexts,
                    is_in_group=piece.is_in_group,
                    child=piece.child,
                )
                changes = {"is_open": True} if piece.is_whole else {}
                view = msgspec.structs.replace(view, remark=remark, **changes)
                return self._draw_part(view, piece.index, piece.address)
            case FilePiece():
                block = diff_of_file(Fields.decode(piece.body), bounds, is_split=piece.is_split)
                file = short_path(block.file, piece.directory)
                block = msgspec.structs.replace(block, file=file, remark=remark or block.remark)
                layout = "&layout=split" if piece.is_split else ""
                address = "" if piece.is_whole else f"?view=changes{layout}&file={piece.number}"
                return self._draw_file(block, piece.number, address)
            case CodePiece():
                blocks = code(visible(piece.body.decode()), bounds, language=language_of(piece.name))
                shown = blocks[0] if blocks and isinstance(blocks[0], Code) else None
                count = shown.html.count("\n") + 1 if shown is not None and piece.is_numbered else 0
                return self._draw_code(shown, count, remark)


def _bounds(is_whole: bool, detail: Detail) -> Bounds:
    if detail is Detail.PLAIN:
        return PLAIN_WHOLE if is_whole else PLAIN
    bounds = WHOLE if is_whole else NORMAL
    return msgspec.structs.replace(bounds, has_colours=detail is Detail.FULL)
