"""Markdown as HTML that is safe to show: escaped by markdown-it, and then cleaned by nh3.

Nothing of it is loaded from anywhere: an image becomes a link to it. Links lead to http, https and mailto.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape
from mdit_py_plugins.footnote import footnote_plugin
from pygments.token import STANDARD_TYPES

from rpcshare.render.highlighting import highlighted
from rpcshare.render.latex import (
    MATHML_ATTRIBUTES,
    MATHML_TAGS,
    MAX_FORMULA,
    MAX_FORMULAS,
    formula_at,
    is_formula,
    mathml,
)
from rpcshare.render.safe_text import STYLE_SEQUENCE, clean_but_for_styles, plain
from rpcshare.render.terminal import STYLE_CLASSES, UNSTYLED, classes_of_style, shown_by_terminal, styled

__all__ = ["MAX_MARKDOWN", "markdown"]

MAX_MARKDOWN = 200_000
"""Characters. It takes about 1.5 ms a kilobyte; what is longer is shown as it was written."""

_MAX_LINKIFIED = 50_000
_MAX_URLS = 200  # linkify takes quadratic time in their number
_MAX_NESTING = 20  # of quotes and lists
_MAX_FOOTNOTES = 300  # what begins one is looked for to the end of its line
_MAX_FORMULA_LINES = 60
_MAX_CELLS = 10_000  # of tables; a short row is filled up, so that a byte may make hundreds

# What is kept in the environment of one rendering.
_HAS_COLOURS, _CELLS, _FORMULAS, _STYLE, _DOCUMENT = "has_colours", "cells", "formulas", "style", "document"

_TOP_HEADING = 3  # a page has its title at 1, and messages at 2
_LAST_HEADING = 6

_LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)

_FOOTNOTE = re.compile(r"#fn(?:ref)?-[0-9a-f]{8}-\d{1,4}(?::\d{1,4})?")

_cleaner = nh3.Cleaner(
    tags={
        *("p", "br", "hr", "em", "strong", "s", "del", "blockquote", "ul", "ol", "li", "a", "sup"),
        *("code", "pre", "span", "div", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
        *MATHML_TAGS,
    },
    attributes={
        "*": {"dir"},
        "a": {"href", "title", "aria-label"},
        "ol": {"start"},
        "th": {"scope"},
        "li": {"id"},
        "sup": {"id"},
        "div": {"tabindex"},
        **{tag: set(MATHML_ATTRIBUTES) for tag in MATHML_TAGS},
    },
    allowed_classes={
        "span": {name for name in STANDARD_TYPES.values() if name} | {"language", "tex"} | STYLE_CLASSES,
        "div": {"code", "table", "formula"},
        "a": {"image-link", "footnote-back"},
        "blockquote": {"alert", "note", "tip", "important", "warning", "caution"},
        "li": {"task"},
        "ol": {"footnotes"},
        "th": {"right", "center"},
        "td": {"right", "center"},
    },
    set_tag_attribute_values={"pre": {"tabindex": "0"}},
    link_rel="noopener noreferrer nofollow",
    url_schemes={"http", "https", "mailto"},
    url_relative=lambda url: url if _FOOTNOTE.fullmatch(url) else None,
)


def markdown(text: str, *, has_colours: bool = True, name: str = "") -> Markup:
    """Return markdown as HTML, in which headings go on below those of the page.

    Some text takes markdown-it time that grows with its square, and Pygments longer than anybody waits:
    the caller has to be able to stop this.

    Args:
        text: what was written.
        has_colours: whether code in it is highlighted.
        name: what tells it from the same text elsewhere on a page, for links within it.
    """
    text = clean_but_for_styles(text)
    if len(text) > MAX_MARKDOWN:
        return _as_written(text, f"it is longer than {MAX_MARKDOWN:,} characters")
    has_links = len(text) <= _MAX_LINKIFIED and text.count("://") <= _MAX_URLS
    has_footnotes = 0 < text.count("[^") <= _MAX_FOOTNOTES
    parser = _parser(
        linkify=has_links, footnotes=has_footnotes, directions=_RIGHT_TO_LEFT.search(text) is not None
    )
    document = hashlib.blake2b(f"{name}\n{text}".encode("utf-8", "replace"), digest_size=4).hexdigest()
    env: dict[str, object] = {
        _HAS_COLOURS: has_colours,
        _CELLS: 0,
        _FORMULAS: 0,
        _STYLE: UNSTYLED,
        _DOCUMENT: document,
    }
    try:
        html = STYLE_SEQUENCE.sub("", parser.render(text, env))
    except _TooManyCellsError:
        return _as_written(text, f"its tables have more than {_MAX_CELLS:,} cells")
    except (RecursionError, _NestedTooDeeplyError):
        return _as_written(text, "it is nested too deeply")
    except ValueError:  # a URL that is none
        return _as_written(text, "an address in it cannot be read")
    return Markup(_cleaner.clean(html))  # noqa: S704 -- this is what cleaning is for


def _as_written(text: str, why: str) -> Markup:
    return Markup(
        '<p class="remark">Shown as it was written: {}.</p><pre class="as-written" tabindex="0">{}</pre>'
    ).format(why, text)


class _Renderer(RendererHTML):
    """What markdown-it prints, but for code, images, tables and headings."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print a block of code, under the name of its language."""
        language = (tokens[idx].info.split() or [""])[0]
        return _code(tokens[idx].content, language, has_colours=env[_HAS_COLOURS])

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print an indented block of code."""
        return _code(tokens[idx].content, "", has_colours=False)

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print a link to an image."""
        token = tokens[idx]
        source = str(token.attrs.get("src", ""))
        label = token.content.strip() or "image"
        if not _LINK.match(source):
            return str(escape(f"[{label}]"))
        return str(Markup('<a class="image-link" href="{}">{}</a>').format(source, label))

    def math(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print a formula, or what was written where it cannot be drawn."""
        token = tokens[idx]
        env[_FORMULAS] += 1
        drawn = None
        if env[_FORMULAS] <= MAX_FORMULAS and not token.meta.get("is_doubtful"):
            drawn = mathml(token.content, is_block=bool(token.meta["is_block"]))
        return str(drawn if drawn is not None else Markup('<span class="tex">{}</span>').format(token.markup))

    def math_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print a formula on lines of its own, which may be wider than the page."""
        stop = ' tabindex="0"' if len(tokens[idx].content) > _LONG_FORMULA else ""
        return f'<div class="formula"{stop}>{self.math(tokens, idx, options, env)}</div>\n'

    def renderInline(self, tokens: Sequence[Token], options: OptionsDict, env: EnvType) -> str:  # noqa: N802
        """Print the inside of a block, in the style that a terminal would have there."""
        begin = _span(env[_STYLE])
        html = super().renderInline(tokens, options, env)
        return f"{begin}{html}</span>" if _span(env[_STYLE]) else f"{begin}{html}"

    def style(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print what changes the style of a text, as on a terminal."""
        end = "</span>" if _span(env[_STYLE]) else ""
        env[_STYLE] = styled(env[_STYLE], tokens[idx].content)
        return end + _span(env[_STYLE])

    def footnote_ref(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print the number of a footnote."""
        number, place = tokens[idx].meta["id"] + 1, tokens[idx].meta["subId"]
        name = f"{env[_DOCUMENT]}-{number}"
        return f'<sup id="fnref-{name}:{place}"><a href="#fn-{name}">{number}</a></sup>'

    def footnote_block_open(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        """Begin the footnotes."""
        return '<ol class="footnotes">\n'

    def footnote_block_close(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        """End the footnotes."""
        return "</ol>\n"

    def footnote_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Begin a footnote."""
        return f'<li id="fn-{env[_DOCUMENT]}-{tokens[idx].meta["id"] + 1}">'

    def footnote_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """End a footnote."""
        return "</li>\n"

    def footnote_anchor(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print the link from a footnote back to where it belongs."""
        number, place = tokens[idx].meta["id"] + 1, tokens[idx].meta["subId"]
        href = f"#fnref-{env[_DOCUMENT]}-{number}:{place}"
        return f' <a class="footnote-back" href="{href}" aria-label="Back to the text">\u21a9\ufe0e</a>'

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Begin a table, which may be wider than the page."""
        return '<div class="table" tabindex="0"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """End a table."""
        return "</table></div>"


_LONG_FORMULA = 60  # characters


def _span(style: tuple[str, str, str]) -> str:
    classes = classes_of_style(style)
    return f'<span class="{classes}">' if classes else ""


def _code(code: str, language: str, *, has_colours: bool) -> str:
    label = Markup('<span class="language">{}</span>').format(language[:40]) if language else Markup()
    if "\x1b" in code:
        body: str = Markup("\n").join(shown_by_terminal(code.rstrip("\n")))
        return str(Markup('<div class="code">{}<pre><code>{}</code></pre></div>\n').format(label, body))
    body = plain(code).rstrip("\n")
    if has_colours:
        body = highlighted(body, language)
    return str(Markup('<div class="code">{}<pre><code>{}</code></pre></div>\n').format(label, body))


def _is_allowed(url: str) -> bool:
    return _LINK.match(url.strip()) is not None


@lru_cache
def _parser(*, linkify: bool, footnotes: bool, directions: bool) -> MarkdownIt:
    parser = MarkdownIt(
        "commonmark",
        # People, and models, mean the line breaks that they write.
        {"html": False, "breaks": True, "linkify": linkify, "typographer": False, "maxNesting": _MAX_NESTING},
        renderer_cls=_Renderer,
    )
    parser.enable(["table", "strikethrough"])
    parser.inline.ruler.before("escape", "math", _math)
    parser.inline.ruler.before("escape", "style", _style)
    parser.inline.add_terminator_char("\x1b")
    parser.block.ruler.before(
        "fence", "math_block", _math_block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    parser.inline.ruler.before("escape", "line_break", _line_break)
    parser.core.ruler.after("inline", "tasks_and_alerts", _mark_tasks_and_alerts)
    parser.block.ruler.at("table", _bounded_table, {"alt": ["paragraph", "reference"]})
    if linkify and parser.linkify is not None:
        parser.enable("linkify")
        parser.linkify.set({"fuzzy_link": False, "fuzzy_email": False})
    parser.validateLink = _is_allowed  # type: ignore[method-assign]  # the documented way to set the rule
    parser.core.ruler.after("block", "deep_nesting", _refuse_deep_nesting)
    parser.core.ruler.push("page_headings", _set_headings)
    parser.core.ruler.push("cell_classes", _set_cells)
    if footnotes:
        parser.use(footnote_plugin, inline=False)
        for rule in ("ref", "block_open", "block_close", "open", "close", "anchor"):
            parser.renderer.rules[f"footnote_{rule}"] = getattr(parser.renderer, f"footnote_{rule}")  # type: ignore[attr-defined]
    if directions:
        parser.core.ruler.push("directions", _set_directions)
    return parser


_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)


def _math(state: StateInline, silent: bool) -> bool:
    """Take a formula of LaTeX as it was written: Markdown would take its backslashes for escapes."""
    if state.src[state.pos] not in "$\\":
        return False
    found = formula_at(state.src, state.pos)
    if found is None:
        return False
    latex, end, is_block = found
    if not silent:
        token = state.push("math", "math", 0)
        token.content, token.markup, token.meta = latex, state.src[state.pos : end], {"is_block": is_block}
    state.pos = end
    return True


_ENVIRONMENT = re.compile(
    r"\\begin\{((?:equation|align|aligned|alignat|gather|gathered|multline|eqnarray|cases"
    r"|[pbvBV]?matrix|split)\*?)\}"
)


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Take a formula on lines of its own before Markdown sees lists and headings in it."""
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    signs = _signs(first)
    if signs is None or state.is_code_block(start) or (silent and _is_within_formula(state, start)):
        return False
    opening, closing = signs
    lines = _lines_until(state, start, end, first[len(opening) :], closing)
    written = (opening + "\n".join(lines)).strip()
    inner = written[len(opening) : -len(closing)]
    if not lines or closing in inner or len(written) < len(opening) + len(closing) or not inner.strip():
        return False
    if silent:
        return True
    token = state.push("math_block", "math", 0)
    token.content = written if opening.startswith("\\begin") else inner.strip()
    token.markup = written
    is_doubtful = len(written) > MAX_FORMULA or not is_formula(inner, is_doubtful=opening == "$$")
    token.meta = {"is_block": True, "is_doubtful": is_doubtful}
    token.block = True
    token.map = [start, start + len(lines)]
    state.line = start + len(lines)
    return True


def _is_within_formula(state: StateBlock, line: int) -> bool:
    """Return whether the paragraph before a line has begun a formula, behind other words."""
    first = max(state.line, line - _MAX_FORMULA_LINES)
    return state.getLines(first, line, 0, False).count("$$") % 2 == 1


def _signs(line: str) -> tuple[str, str] | None:
    """Return what begins a formula on a line, and what ends it."""
    if line.startswith("$$"):
        return "$$", "$$"
    if line.startswith("\\["):
        return "\\[", "\\]"
    environment = _ENVIRONMENT.match(line)
    return (environment[0], f"\\end{{{environment[1]}}}") if environment is not None else None


def _lines_until(state: StateBlock, start: int, end: int, first: str, closing: str) -> list[str]:
    """Return the lines up to the one that ends with ``closing``; none if that is not to be found."""
    lines = [first]
    while not lines[-1].rstrip().endswith(closing):
        line = start + len(lines)
        if closing in lines[-1] or line >= min(end, start + _MAX_FORMULA_LINES):
            return []
        if state.sCount[line] < state.blkIndent:
            return []
        lines.append(state.getLines(line, line + 1, state.blkIndent, False))
    return lines


def _style(state: StateInline, silent: bool) -> bool:
    """Take the sequence that sets colours and styles on a terminal."""
    match = STYLE_SEQUENCE.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        state.push("style", "span", 0).content = match[0][2:-1]
    state.pos = match.end()
    return True


def _line_break(state: StateInline, silent: bool) -> bool:
    """Take ``<br>``, the only way to break a line within a table, for what it says."""
    match = _BREAK.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        state.push("hardbreak", "br", 0)
    state.pos = match.end()
    return True


_TASK = re.compile(r"\[([ xX])\](?=[ \t])")
_ALERT = re.compile(r"\[!(NOTE|TIP|IMPORTANT|WARNING|CAUTION)\][ \t]*$")


def _mark_tasks_and_alerts(state: StateCore) -> None:
    """Show ``- [x]`` as a box, and name the alert that ``> [!NOTE]`` begins."""
    for index, token in enumerate(state.tokens):
        if token.type != "inline" or not token.children or index < 2:
            continue
        around, first = state.tokens[index - 2].type, token.children[0]
        if around == "list_item_open" and (task := _TASK.match(first.content)):
            state.tokens[index - 2].attrs["class"] = "task"
            box = "\u2610" if task[1] == " " else "\u2611"
            first.content = box + first.content[task.end() :]
        elif around == "blockquote_open" and (alert := _ALERT.match(first.content)):
            state.tokens[index - 2].attrs["class"] = f"alert {alert[1].lower()}"
            name = Token("text", "", 0, content=alert[1].title())
            token.children[:1] = [
                Token("strong_open", "strong", 1),
                name,
                Token("strong_close", "strong", -1),
            ]


class _TooManyCellsError(Exception):
    pass


class _NestedTooDeeplyError(Exception):
    pass


def _refuse_deep_nesting(state: StateCore) -> None:
    """Have it said where markdown-it would leave out what is nested more deeply than it goes."""
    if any(token.nesting == 1 and token.level + 1 >= _MAX_NESTING for token in state.tokens):
        raise _NestedTooDeeplyError


def _bounded_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Begin no table that would be too large with those before it."""
    if not table(state, start, end, True):  # which looks at its first two lines
        return False
    if silent:
        return True
    columns = state.getLines(start, start + 1, 0, False).count("|") + 1
    rows = 2
    while start + rows < end and not state.isEmpty(start + rows):
        rows += 1
    state.env[_CELLS] += columns * rows
    if state.env[_CELLS] > _MAX_CELLS:
        raise _TooManyCellsError
    return table(state, start, end, silent)


def _set_headings(state: StateCore) -> None:
    """Let headings begin at level 3, and go down one level at a time."""
    above: list[int] = []  # the levels that the text gave to the headings around the present one
    for token in state.tokens:
        if token.type == "heading_open":
            level = int(token.tag[1])
            while above and above[-1] >= level:
                above.pop()
            above.append(level)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(_TOP_HEADING - 1 + len(above), _LAST_HEADING)}"


def _set_cells(state: StateCore) -> None:
    """Turn alignment from a style, which the page's policy forbids, into a class."""
    for token in state.tokens:
        if token.type in ("th_open", "td_open"):
            style = str(token.attrs.pop("style", ""))
            for side in ("right", "center"):
                if side in style:
                    token.attrs["class"] = side
            if token.type == "th_open":
                token.attrs["scope"] = "col"


_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_DIRECTED = frozenset({"paragraph_open", "heading_open", "list_item_open", "th_open", "td_open"})
_LISTS = frozenset({"bullet_list_open", "ordered_list_open", "blockquote_open"})


def _set_directions(state: StateCore) -> None:
    """Give each block its own direction, and a list that of its first words, for the side of its marks."""
    waiting: list[Token] = []
    for token in state.tokens:
        if token.type in _LISTS:
            waiting.append(token)
        elif token.type in _DIRECTED:
            token.attrs["dir"] = "auto"
        elif token.type == "inline":
            inside = token.children or []
            # A path or a formula says nothing of the language around it.
            for each in inside:
                if each.type == "code_inline":
                    each.attrs["dir"] = "ltr"
            direction = _direction("".join(each.content for each in inside if each.type == "text"))
            for each in waiting:
                each.attrs["dir"] = direction
            waiting = []


def _direction(text: str) -> str:
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("R", "AL"):
            return "rtl"
        if kind == "L":
            return "ltr"
    return "ltr"
