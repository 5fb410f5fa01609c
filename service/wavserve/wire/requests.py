"""Requests as protobuf and back: the gRPC edge parses them, the robot client builds them."""

from __future__ import annotations

from wavserve.core.errors import InvalidRequest
from wavserve.core.messages import Submission
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import MAX_IMAGES, MAX_MILLISECONDS, MAX_STATE_NUMBERS, parts


def parse_plan_request(raw: bytes) -> Submission:
    """What a robot sent. Raises InvalidRequest for bytes that are no PlanRequest, and for fields it does not have."""
    message = pb.PlanRequest()
    parts.parse(message, raw)
    _check_counts(message)
    parts.refuse_unknown("planner", message.planner)
    for image in message.images:
        parts.refuse_unknown(f"images.{image.camera}", image)
    return Submission(
        images=tuple(parts.image_from(image) for image in message.images),
        state=tuple(message.state),
        instruction=message.instruction,
        session_id=message.session_id or None,
        sequence=message.sequence,
        control_step=message.control_step,
        executed_steps=message.executed_steps,
        policy=message.policy or None,
        options=parts.options_from(message.planner),
        seed=message.seed if message.HasField("seed") else None,
        deadline_ms=message.deadline_ms if message.HasField("deadline_ms") else None,
        imagine_chunks=message.imagine_chunks,
    )


def _check_counts(message: pb.PlanRequest) -> None:
    """Before an object is made of each: two bytes are enough for an image."""
    if len(message.images) > MAX_IMAGES:
        raise InvalidRequest("images", f"at most {MAX_IMAGES} images", f"{len(message.images)} images")
    if len(message.state) > MAX_STATE_NUMBERS:
        raise InvalidRequest("state", f"at most {MAX_STATE_NUMBERS} numbers", f"{len(message.state)} numbers")


def parse_reset_request(raw: bytes) -> str:
    """The session to reset. Raises InvalidRequest."""
    message = pb.ResetRequest()
    parts.parse(message, raw)
    return message.session_id


def parse_get_policy_request(raw: bytes) -> str | None:
    """The policy asked about; None is whichever is served. Raises InvalidRequest."""
    message = pb.GetPolicyRequest()
    parts.parse(message, raw)
    return message.policy or None


def plan_request(submission: Submission) -> pb.PlanRequest:
    """A submission as protobuf. Raises InvalidRequest, or UnsupportedMedia, for what the contract has no place for."""
    pictures = [parts.image(picture) for picture in submission.images]
    planner = parts.options(submission.options) if submission.options else None
    told = submission.deadline_ms
    if told is not None and not 0 <= told <= MAX_MILLISECONDS:  # of 0 the service judges
        raise InvalidRequest("deadline_ms", f"1 to {MAX_MILLISECONDS}", told)
    try:
        return pb.PlanRequest(
            session_id=submission.session_id or "",
            sequence=submission.sequence,
            control_step=submission.control_step,
            executed_steps=submission.executed_steps,
            images=pictures,
            state=submission.state,
            instruction=submission.instruction,
            policy=submission.policy or "",
            planner=planner,
            seed=submission.seed,
            deadline_ms=submission.deadline_ms,
            imagine_chunks=submission.imagine_chunks,
        )
    except (TypeError, ValueError) as error:
        raise InvalidRequest("request", "numbers of the contract's types", str(error)) from None
