"""51 x 51 points of a plane through the parameters of the 64-64-10 net, all 1,797 digits."""

import numpy as np
import pytest

from . import work


@pytest.mark.parametrize("who", ["losslab", "loss-landscapes"])
def test_surface(who, timed, turn):
    direct = work.surface_directly()

    def error(values):
        off = np.abs(values - direct).max(1) / np.abs(direct).max()
        if who == "losslab":
            return f"{off.max():.0e}"
        # loss-landscapes walks every other row one step beside where it should.
        return f"{off[::2].max():.0e}; every other row is one step off, there {off[1::2].max():.0e}"

    function = work.surface if who == "losslab" else work.surface_loss_landscapes
    values = timed(function, "surface", who, error)
    assert np.allclose(values[::2], direct[::2], rtol=1e-12, atol=0)
