"""What hypothesis draws for the numbers in names and lists."""

import pytest
from hypothesis import strategies as st


@pytest.fixture(scope="session")
def near_numbers():
    """Texts that are numbers, look like numbers, or are anything a file name may hold."""
    return st.one_of(
        st.floats().map(str),
        st.integers(-(10**8), 10**8).map(str),
        st.text("0123456789.+-eE_ infa٣", max_size=9),
        st.text(st.characters(exclude_categories=[], exclude_characters="\0/"), max_size=12),
    )
