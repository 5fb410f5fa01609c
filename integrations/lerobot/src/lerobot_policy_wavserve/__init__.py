"""LeRobot policy `wavserve`, whose actions come from a service. LeRobot imports this package, which registers it.

Without LeRobot nothing is registered; the modules that need no LeRobot can still be used.
"""

from importlib.util import find_spec

if find_spec("lerobot") is not None:
    from lerobot_policy_wavserve import configuration_wavserve as configuration_wavserve
