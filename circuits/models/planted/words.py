"""What the token ids of planted models mean, so that prompts can be written for them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class OperandWords:
    """Two operands (0 and 1), each a bit under one of two labels, and queries that ask for a label of each.

    After BOS come operand tokens, in any order and among fillers: two an operand, one for either label. The last token
    asks for one label of each operand; the answer, `yes` or `no`, hangs on the two bits asked for.
    """

    variants: int = 2
    """Tokens that say the same."""
    fillers: int = 8

    def operand(self, operand: int, label: int, bit: int, variant: int = 0) -> int:
        """The token that says: this operand has this bit under this label."""
        return 1 + ((operand * 2 + label) * 2 + bit) * self.variants + variant

    def query(self, first: int, second: int) -> int:
        """The token that asks for the first operand under one label and for the second under another."""
        return 1 + 8 * self.variants + 2 * first + second

    @property
    def filler_ids(self) -> range:
        """Tokens without a meaning."""
        start = 1 + 8 * self.variants + 4
        return range(start, start + self.fillers)

    @property
    def no(self) -> int:
        """The answer for false."""
        return self.filler_ids.stop

    @property
    def yes(self) -> int:
        """The answer for true."""
        return self.no + 1

    @property
    def d_vocab(self) -> int:
        """All tokens, BOS (0) among them."""
        return self.yes + 1


@dataclasses.dataclass(frozen=True)
class HopWords:
    """Contents with a label (0 or 1), and markers, each of which wants a label and has one, for hops from one to the next.

    A marker of hop 0 takes over the content that has the label it wants; one of hop 1 takes over what such a marker took,
    and so on. The last token is a marker of the last hop, and the answer the word for the content that reached it.
    """

    hops: int = 3
    contents: int = 10
    fillers: int = 8

    def content(self, content: int, label: int) -> int:
        """The token with this content and label."""
        return 1 + 2 * content + label

    def marker(self, hop: int, wants: int, label: int) -> int:
        """The token that wants one label and has another."""
        return 1 + 2 * self.contents + 4 * hop + 2 * wants + label

    @property
    def filler_ids(self) -> range:
        """Tokens without a meaning."""
        start = 1 + 2 * self.contents + 4 * self.hops
        return range(start, start + self.fillers)

    def answer(self, content: int) -> int:
        """The word for a content."""
        return self.filler_ids.stop + content

    @property
    def d_vocab(self) -> int:
        """All tokens, BOS (0) among them."""
        return self.filler_ids.stop + self.contents
