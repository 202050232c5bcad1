"""Words about results."""


def one_line(text: str, longest: int = 160) -> str:
    """The first sentence of a text, on one line, cut off at `longest` characters."""
    line = " ".join(text.split())
    end = line.find(". ")
    line = line if end < 0 else line[: end + 1]
    return line if len(line) <= longest else line[: longest - 1] + "…"


def counted(count: int, what: str) -> str:
    """A number with what it counts: "1 layer", "12 layers"; `what` in the singular, or already a plural."""
    ending = "" if count == 1 or what.endswith("s") else "es" if what.endswith("ch") else "s"
    return f"{count:,} {what.replace('_', ' ')}{ending}"


def duration(seconds: float) -> str:
    """A time in words: "40 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
