import pytest

from ssanet_jax.analysis.macs import Cost
from ssanet_jax.tables import si_format
from ssanet_jax.training.console import cost_rows


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (2_547_000, '2.547 M'),
        (999_900_000, '999.9 M'),
        (999_960_000, '1 G'),
        (15_470_400_000, '15.47 G'),
        (123_456_000_000, '123.5 G'),
        (7_600_000_000_000, '7.6 T'),
    ],
)
def test_si_format_has_four_digits_and_no_exponent(value, text):
    assert si_format(value) == text


def test_the_table_of_a_run_has_no_exponent():
    """The cost of VGG-16 at 224 x 224."""
    cost = Cost(138_357_544, 15_470_264_320, 0, 0)
    assert cost_rows(cost)['MACs'] == '15.47 G'
