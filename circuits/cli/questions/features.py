"""What commands about features as nodes ask: which dictionaries, of which place."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import circuits
from circuits.errors import PromptError

if TYPE_CHECKING:
    from circuits.concepts import Dictionary


@dataclasses.dataclass(frozen=True, kw_only=True)
class DictionaryFiles:
    """Files or folders of dictionaries, and the place of one that does not say."""

    files: Sequence[Path]
    at: str | None = None

    @property
    def again(self) -> list[str]:
        """The option that says of which place a dictionary is, as words of a command line."""
        return [] if self.at is None else ["--at", self.at]

    def read(self) -> "list[Dictionary]":
        """The dictionaries; needs no model. Raises FileFormatError for one that cannot be read, PromptError for none."""
        if not self.files:
            raise PromptError("name a dictionary's file or folder: circuits features train writes one")
        if self.at is not None and len(self.files) > 1:
            raise PromptError("--at says of which place one dictionary is: name one file with it")
        found = [circuits.concepts.read_dictionary(file) for file in self.files]
        return found if self.at is None else [dataclasses.replace(found[0], site=self.at)]

    def check(self, model: "circuits.Model", dictionaries: "Sequence[Dictionary]", to: str | None = None) -> None:
        """Raise GraphError for dictionaries that do not fit a model, for what is none of their features; PromptError
        for a feature before all of them."""
        from circuits.concepts.feature_nodes.taps import parsed_node, taps_of

        taps = taps_of(model, list(dictionaries))
        if to is not None:
            place, _ = parsed_node(taps, to)
            if all(tap.writes.rank >= taps[place].reads.rank for tap in taps):
                raise PromptError(
                    f"{to} is of the first dictionary named: it is attributed to those of earlier places, name one"
                )
