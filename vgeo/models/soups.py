"""Model soups: the weights of several models averaged into one (Wortsman et al., ICML 2022)."""

from vgeo.errors import VgeoError


def average(states, shares=None):
    """The weighted mean of state dicts, float tensors in float64 and then in their own dtype; integers are the first's.

    shares: one number a state, summing to 1; equal by default. BatchNorm's running statistics are averaged as the weights are. Raises
    VgeoError for states of different models: only models from one shared start lie in one basin.
    """
    shares = [1 / len(states)] * len(states) if shares is None else list(shares)
    if any(
        state.keys() != states[0].keys() or any(state[k].shape != states[0][k].shape for k in state)
        for state in states
    ):
        raise VgeoError(
            "a soup of different models: all ingredients need the same backbone and head"
        )
    if len(shares) != len(states) or abs(sum(shares) - 1) > 1e-6:
        raise VgeoError(
            f"soup shares {shares} of {len(states)} models: give one share a model, 1 in all"
        )
    return {
        name: sum(share * state[name].double() for share, state in zip(shares, states)).to(
            first.dtype
        )
        if first.is_floating_point()
        else first.clone()
        for name, first in states[0].items()
    }


def greedy(names, score):
    """The ingredients of a greedy soup (recipe 1 of the paper), best first.

    score(list of names) is the *validation* recall of their uniform average. Starting with the best one, each next best is kept when the
    soup does not get worse by it.
    """
    alone = {name: score([name]) for name in names}
    ordered = sorted(names, key=lambda name: -alone[name])
    kept, best = ordered[:1], alone[ordered[0]]
    for name in ordered[1:]:
        found = score([*kept, name])
        if found >= best:
            kept, best = [*kept, name], found
    return kept
