"""Model soups: the weights of several models averaged into one.

References
----------
Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", ICML 2022.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from vgeo.errors import VgeoError


def average(
    states: Sequence[dict[str, Tensor]], shares: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The weighted mean of state dicts.

    Float tensors, BatchNorm's statistics too, are averaged in float64 and keep their dtype. Integer
    tensors are the first state's.

    Parameters
    ----------
    states : of models from one shared start; others do not lie in one basin of the loss.
    shares : a number for each state, 1 in all; None for equal shares.

    Raises
    ------
    VgeoError : the states differ in names or shapes, or the shares are not one for each, 1 in all.
    """
    shares = [1 / len(states)] * len(states) if shares is None else list(shares)
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    if any(each != shapes[0] for each in shapes):
        raise VgeoError(
            "a soup of different models: all ingredients need the same backbone and head"
        )
    if len(shares) != len(states) or abs(sum(shares) - 1) > 1e-6:
        raise VgeoError(
            f"soup shares {shares} of {len(states)} models: give one share a model, 1 in all"
        )
    soup = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            terms = [share * state[name].double() for share, state in zip(shares, states)]
            soup[name] = sum(terms[1:], terms[0]).to(first.dtype)
        else:
            soup[name] = first.clone()
    return soup


def greedy(names: Sequence[str], score: Callable[[list[str]], float]) -> list[str]:
    """The ingredients of a greedy soup (the paper's recipe 1), best first.

    The soup starts with the best model. Each next best one is kept where the soup's score does not
    fall by it.

    Parameters
    ----------
    score : the *validation* recall of the uniform average of some of the names.
    """
    alone = {name: score([name]) for name in names}
    ordered = sorted(names, key=lambda name: -alone[name])
    kept, best = ordered[:1], alone[ordered[0]]
    for name in ordered[1:]:
        recall = score([*kept, name])
        if recall >= best:
            kept, best = [*kept, name], recall
    return kept
