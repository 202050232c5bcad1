"""The exceptions that this package raises for what a user can get wrong.

Each message is one readable line that says what, where, got, expected and what to do; the command line prints it
as it is.
"""


class CircuitsError(Exception):
    """Any error that this package raises on purpose."""


class ModelError(CircuitsError):
    """A model cannot be loaded, or a part of it is not represented."""


class PromptError(CircuitsError):
    """A prompt or a clean/corrupt pair cannot be used."""


class GraphError(CircuitsError):
    """A node or edge name is malformed, is not in the graph, or a selection does not fit its graph."""


class FileFormatError(CircuitsError):
    """A circuit or prompt file cannot be read or written."""


class EndpointError(CircuitsError):
    """A server that is asked to explain or to simulate cannot be reached, refuses, or gives half an answer."""


class AnswerError(EndpointError):
    """A language model, here or behind an address, gives an answer that cannot be used; its other answers may be whole."""


class NonFiniteError(CircuitsError):
    """A NaN or an infinity stands where a finite number is needed."""


class MemoryBudgetError(CircuitsError):
    """A computation would need more memory than its budget; refused before anything is allocated."""


def shown(value: object) -> str:
    """Quote a value for an error message: one line of at most about 80 characters, whatever the value."""
    if isinstance(value, str):
        quoted = repr(str(value[:80]))
        return quoted if len(quoted) <= 84 else f"{quoted[:80]}…"
    if isinstance(value, int) and abs(value) > 2**64:
        return "a huge whole number"
    return repr(value) if value is None or isinstance(value, (bool, int, float)) else f"a {type(value).__name__}"
