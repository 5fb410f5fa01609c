"""The configuration file: what is refused, and with which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wavserve.clients.piper import config
from wavserve.clients.piper.config import PiperConfig
from wavserve.core.errors import SettingsError

EXAMPLE = Path(__file__).parents[3] / "examples" / "piper.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")


def load(folder: Path, text: str) -> PiperConfig:
    file = folder / "robot.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(file)


def test_the_example_says_the_defaults(tmp_path: Path) -> None:
    """The optional tables of the example are exactly what holds without them."""
    required = TEXT.partition("# What the client lets through")[0]
    assert load(tmp_path, TEXT) == load(tmp_path, required)
    for key, value in re.findall(r"^# (\w+) = (\S+) +# default", TEXT, re.MULTILINE):
        if key in {"control_hz", "link_timeout_s", "deadline_ms"}:
            read = load(tmp_path, required)
            assert str(getattr(read, key, None) or getattr(read.server, key)) == value


def test_the_order_of_the_arms_is_the_order_of_the_vectors() -> None:
    read = config.load(EXAMPLE)
    assert read.axis_names[:2] == ("left_joint_1", "left_joint_2")
    assert read.axis_names[6:8] == ("left_gripper", "right_joint_1")
    assert read.axis_units == (("rad",) * 6 + ("m",)) * 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('joint = "rad" ', "", "units.joint: expected rad or deg, got nothing"),
        ('joint = "rad"', 'joint = "grad"', "units.joint: expected rad or deg, got 'grad'"),
        ('gripper = "m"', "gripper = 3", "units.gripper: expected m or mm, got 3"),
        ("[motion]", "[motion]\nmax_jiont_speed = 1.0", "motion.max_jiont_speed: unknown key; did you mean max_joint"),
        ("[units]", "[unit]", "unit: unknown key; did you mean units"),
        ("max_joint_speed = 1.5", "max_joint_speed = 3.5", "motion.max_joint_speed: expected above 0, at most 3.0"),
        ("max_joint_speed = 1.5", "max_joint_speed = nan", "motion.max_joint_speed: expected a number, got nan"),
        ("max_clamped_steps = 30", "max_clamped_steps = true", "motion.max_clamped_steps: expected an integer"),
        ("max_clamped_steps = 30", "max_clamped_steps = 3.0", "motion.max_clamped_steps: expected an integer, got 3.0"),
        ('address = "127.0.0.1:8001"', 'address = "127.0.0.1"', "server.address: expected HOST:PORT"),
        ('"127.0.0.1:8001"', '"http://127.0.0.1:8000"', "server.address: expected HOST:PORT"),
        ('"127.0.0.1:8001"', '"a:1,a:1"', "server.address[1]: expected each address once"),
        ('channel = "can_right"', 'channel = "can_left"', "arms.channel: expected distinct names"),
        ('name = "right"', 'name = "left"', "arms.name: expected distinct names"),
        ('name = "top"', 'name = "left_wrist"', "cameras.name: expected distinct names"),
        ('robot_id = "piper-1"', 'robot_id = ""', "robot_id, embodiment: expected a text that is not empty"),
        ('name = "top"\nsource = "synthetic"', 'name = "top"\nsource = "device"', "cameras.path of top"),
        ("stop_within_s = 0.3", "stop_within_s = 0.9", "motion.stop_within_s: expected 0.05 to 0.5 s, got 0.9"),
        ("robot_id", "robot_id = [", "Invalid value"),
        ("max_feedback_age_ms = 100.0", "max_feedback_age_ms = 5000", "watch.max_feedback_age_ms: expected 20 to 200"),
        ('# mode = "off"', 'mode = "guided"', "rtc.mode: expected off or rtc_guided or rtc_trained, got 'guided'"),
        ("# execution_horizon = 10", "execution_horizon = 0", "rtc.execution_horizon: expected at least 1, got 0"),
        ("# max_guidance_weight = 10.0", "max_guidance_weight = -1", "rtc.max_guidance_weight: expected 0 to 1000"),
        ('channel = "can_left"', 'channel = "can_left"\naxes = 7', "arms[0].axes: expected a list, got 7"),
        ('channel = "can_left"', 'channel = "can_left"\naxes = ["a", "b"]', "expected 7 names, got 2"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(SettingsError, match=re.escape(words)):
        load(tmp_path, TEXT.replace(old, new, 1))


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    words = r"nothing\.toml: expected a file that can be read: No such file or directory$"
    with pytest.raises(SettingsError, match=words):
        config.load(tmp_path / "nothing.toml")


def test_three_arms_are_refused(tmp_path: Path) -> None:
    more = '\n[[arms]]\nname = "third"\nchannel = "can3"\n'
    with pytest.raises(SettingsError, match="arms: expected 1 or 2, got 3"):
        load(tmp_path, TEXT + more)
