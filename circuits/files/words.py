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


def size_in_words(count: int) -> str:
    """Bytes in words: "812 bytes", "12 kB", "3.4 MB"."""
    if count < 1000:
        return counted(count, "byte")
    large = next(power for power in (4, 3, 2, 1) if count >= 1000**power)
    number = count / 1000**large
    return f"{number:.{0 if number >= 10 else 1}f} {('kB', 'MB', 'GB', 'TB')[large - 1]}"
