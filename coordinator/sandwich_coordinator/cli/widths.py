"""Text in a number of columns; wide characters (East Asian, emoji) take two. Pure."""

from rich.cells import cell_len, set_cell_size

__all__ = ["cell_len", "fitted"]


def fitted(text: str, width: int) -> str:
    """At most `width` columns of plain text; truncated text ends in an ellipsis."""
    if len(text) > 4 * width:
        # Do not measure all of a very long text.
        text = text[: 4 * width] + "…"
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""
