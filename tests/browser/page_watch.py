"""What a page says and asks for behind its reader's back."""

from playwright.async_api import ConsoleMessage, Dialog, Page, Request

__all__ = ["PageWatch"]


class PageWatch:
    """Notes errors in the console, dialogs, and requests to other hosts."""

    def __init__(self, page: Page, origin: str) -> None:
        self.problems: list[str] = []
        self._origin = origin
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    async def _dialog(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self._origin + "/", "data:image/")):
            self.problems.append(f"request: {request.url}")
