"""Architectures as text: what searched networks take as their `operations`, and how a choice stands in a state dict."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

from torch import nn

from derainzoo.errors import DerainzooError, unknown_name


def parse_choices(
    operations: str | Sequence[str], slots: Mapping[str, Collection[str]], counts: Mapping[int, str], system: str
) -> list[list[str]]:
    """Texts like `sep+dil+skip`, a name for each slot, as lists of names.

    Args:
        operations: the texts; one alone may stand for all.
        slots: name of each slot -> its candidates.
        counts: how many texts there may be -> what they then are of.
        system: the network, for errors.
    """
    texts = [operations] if isinstance(operations, str) else list(operations)
    if len(texts) not in counts:
        expected = " or ".join(f"{n} ({what})" for n, what in counts.items())
        raise DerainzooError(f"operations of {system}: expected as many texts as {expected}, found {len(texts)}")
    parsed = []
    for text in texts:
        names = text.replace(" ", "").split("+") if isinstance(text, str) else []
        if len(names) != len(slots):
            example = "+".join(next(iter(candidates)) for candidates in slots.values())
            raise DerainzooError(f"operations of {system}: expected {len(slots)} names like '{example}', found {text!r}")
        for (slot, candidates), name in zip(slots.items(), names, strict=True):
            if name not in candidates:
                raise unknown_name(f"{slot} of {system}", name, candidates)
        parsed.append(names)
    return parsed


def chosen(name: str, module: nn.Module) -> nn.Sequential:
    """The module under its name, so that the state dict tells the choice.

    A supernet has all candidates of a slot side by side under theirs: what was not chosen left out, its state dict is that of
    the derived network.
    """
    return nn.Sequential(OrderedDict([(name, module)]))
