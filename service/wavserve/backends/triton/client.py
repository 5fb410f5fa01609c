"""The models of one Triton server, over gRPC: a verb is a request to its model, and tensors travel unchanged.

Reports an unavailable model to `on_down`, so that `health` can repair it. Tensors that a whole plan shares travel once
(see `core.tensor_cache`). Knows Triton's protocol and nothing of plans.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from wavserve.core import remote_errors, tracing
from wavserve.core.channels import MAX_BACKOFF_S, MAX_METADATA_BYTES, RECONNECT, proxy_option
from wavserve.core.errors import (
    BackendError,
    Cancelled,
    DeadlineExceeded,
    ModelDown,
    SettingsError,
    TensorMiss,
    WavserveError,
)
from wavserve.core.tensor_cache import Sender
from wavserve.core.types import Tensors
from wavserve.core.verbs import ABOUT, ARENA_OWNER, DESCRIBE, GOLDEN, VERBS, Verb, fingerprints

_CHANNEL = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    *RECONNECT,
)
_DOWN = ("is not healthy", "is not found", "has no available versions", "not ready", "unloading")
"""Parts of Triton's messages when a model's process is dead, or when the model is not loaded, not yet or no longer."""

Traffic = Callable[[str, Mapping[str, int], Mapping[str, int]], None]
"""Receives every answered call: verb, bytes sent and bytes received by tensor name."""


@dataclass(frozen=True, slots=True)
class About:
    """What a hosted model reports of itself."""

    model: str
    digest: str
    device: str
    dtype: str
    process: tuple[int, int]
    """pid and start time, as its own machine counts them; see `system.processes`"""
    policy: dict[str, Any]
    arena: dict[str, int] | None
    """number of slots `used`, and of all `slots`; None unless the model owns the arena"""
    verbs: dict[str, str] = field(default_factory=dict)
    """fingerprints of the verbs it answers; empty in versions before this field"""
    golden_digest: str = ""
    """of the golden plan that the bundle has; empty: none"""
    memory: dict[str, float] = field(default_factory=dict)
    """bytes of the model's process, by the names of `system.memory.MEMORY`; empty in versions before this field"""

    @classmethod
    def read(cls, reported: dict[str, Any]) -> About:
        """From a model's own report. Facts that only another version has are left out: `check_verbs` judges versions.

        Raises TypeError when a fact is missing.
        """
        known = {each.name for each in fields(cls)}
        return cls(**{name: fact for name, fact in reported.items() if name in known})

    def check_verbs(self, endpoint: str) -> None:
        """Raises SettingsError when the model and this gateway have different verb tables."""
        ours = fingerprints(self.model)
        if self.verbs != ours:
            raise SettingsError(
                f"triton: {endpoint}: {self.model} has the verbs {_listed(self.verbs)}, this gateway {_listed(ours)}: "
                "run the same version of wavserve on both"
            )


def connect(url: str, proxy: bool = False) -> InferenceServerClient:
    """A client of a Triton server. With `proxy` it goes through the environment's proxy, except on this machine."""
    return InferenceServerClient(url, channel_args=[*_CHANNEL, *proxy_option(url, proxy)])


class TritonBackend:
    """One endpoint. `url` None: `reconnect` sets it later. `proxy`: see `connect`."""

    def __init__(
        self,
        url: str | None,
        on_down: Callable[[str], None] = lambda model: None,
        on_traffic: Traffic = lambda verb, sent, received: None,
        clock: Callable[[], float] = time.monotonic,
        proxy: bool = False,
    ) -> None:
        self.on_down = on_down
        self._url = url
        self._proxy = proxy
        self._on_traffic = on_traffic
        self._clock = clock
        self._client: Any = None if url is None else connect(url, proxy)
        self._connected_at = clock()
        self._sender = Sender()
        self._in_flight: dict[asyncio.Future[Any], tuple[str, str]] = {}  # model and verb of each call

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        signature = VERBS[verb]
        for _ in range(2):
            try:
                return await self._run(verb, signature, self._sender.fold(inputs, signature.cached), deadline)
            except TensorMiss as error:  # another gateway's rows evicted ours, or the model was reloaded
                self._sender.forget()
                missed = error
            except BaseException:
                if signature.cached:
                    self._sender.forget()  # whether the tensors arrived is not known
                raise
        raise missed

    async def describe(self, model: str, timeout_s: float) -> About:
        """Asks one model to describe itself, which shows that it works.

        Raises ModelDown, BackendError, DeadlineExceeded.
        """
        result = await self._infer(model, DESCRIBE, {}, (ABOUT,), timeout_s)
        text = _outputs(result, (ABOUT,))[ABOUT].tobytes()
        try:
            return About.read(json.loads(text))
        except (ValueError, TypeError) as error:
            raise BackendError(f"{model}: expected the description of a hosted model, got {text[:80]!r}") from error

    async def golden(self, timeout_s: float) -> bytes:
        """The policy's golden plan as safetensors. Raises BackendError when the bundle has none, and as `describe`."""
        result = await self._infer(ARENA_OWNER, GOLDEN, {}, (ABOUT,), timeout_s)
        return _outputs(result, (ABOUT,))[ABOUT].tobytes()

    async def load(self, model: str, timeout_s: float) -> None:
        """Loads a model, or reloads a loaded one. Raises the model's own error, or BackendError."""
        try:
            await self._client.load_model(model, client_timeout=timeout_s)
        except InferenceServerException as error:
            if _status(error) == "DEADLINE_EXCEEDED":
                why = "compiling takes most of it (backend.compile), and its log is Triton's"
                raise BackendError(f"{model}: not loaded within triton.load_s ({timeout_s:g} s): {why}") from error
            raise _typed(error, model) from error

    async def unload(self, model: str, timeout_s: float) -> None:
        try:
            await self._client.unload_model(model, client_timeout=timeout_s)
        except InferenceServerException as error:
            raise _typed(error, model) from error

    async def state(self, model: str, timeout_s: float) -> str:
        """What the server says of a model: READY, also after its process has died; LOADING, UNLOADING or UNAVAILABLE.

        Empty: it has no such model. Raises what its answer says, and ModelDown.
        """
        try:
            index = await self._client.get_model_repository_index(client_timeout=timeout_s)
        except InferenceServerException as error:
            raise _typed(error, model) from error
        return next((str(each.state) for each in index.models if each.name == model), "")

    def is_idle(self) -> bool:
        """Whether no call is in flight; test calls do not count."""
        return all(verb == DESCRIBE for _, verb in self._in_flight.values())

    async def is_live(self, timeout_s: float) -> bool:
        """Whether the server itself answers."""
        try:
            return bool(await self._client.is_server_live(client_timeout=timeout_s))
        except InferenceServerException:
            return False

    def give_up(self, model: str, test_calls: bool = True) -> None:
        """Ends the calls in flight to a model whose process is dead or stands still: Triton may never answer them.

        Their callers get ModelDown.
        """
        for call, (called, verb) in list(self._in_flight.items()):
            if called == model and (test_calls or verb != DESCRIBE):
                call.cancel()

    async def reconnect(self, url: str) -> None:
        """Connects to a server that was restarted at another address."""
        old, self._client, self._url = self._client, connect(url, self._proxy), url
        self._connected_at = self._clock()
        self._sender.forget()
        if old is not None:
            await old.close()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _renew(self, failed: InferenceServerClient) -> None:
        """Replaces the client of a server that is away, at most once in MAX_BACKOFF_S; calls under way keep theirs.

        A new client looks the server's name up at once. gRPC pauses up to two minutes between two look-ups.
        """
        assert self._url is not None, "the client has an address"
        if failed is self._client and self._clock() - self._connected_at >= MAX_BACKOFF_S:
            self._client, self._connected_at = connect(self._url, self._proxy), self._clock()

    async def _run(self, verb: str, signature: Verb, inputs: Tensors, deadline: float) -> Tensors:
        names = tuple(signature.outputs)
        timeout_s = None if deadline == math.inf else deadline - self._clock()
        result = await self._infer(signature.model, verb, inputs, names, timeout_s)
        outputs = _outputs(result, names)
        _check(verb, signature, outputs)
        self._on_traffic(verb, _sizes(inputs), _sizes(outputs))
        return outputs

    async def _infer(
        self, model: str, verb: str, inputs: Tensors, outputs: tuple[str, ...], timeout_s: float | None
    ) -> InferResult:
        if timeout_s is not None and timeout_s <= 0:
            raise DeadlineExceeded(f"{verb}: the deadline passed before the call")
        client, trace = self._client, tracing.current().context
        request = client.infer(
            model,
            [_input(name, tensor) for name, tensor in inputs.items()],
            outputs=[InferRequestedOutput(name) for name in outputs],
            client_timeout=timeout_s,
            # Triton records every request that has a trace, also one of a trace that is not recorded
            headers={tracing.TRACE_KEY: trace.traceparent} if trace is not None and trace.sampled else None,
            parameters={"verb": verb},
        )
        call = asyncio.ensure_future(request)
        self._in_flight[call] = model, verb
        call.add_done_callback(self._in_flight.pop)
        try:
            return await call
        except InferenceServerException as error:
            failure = _typed(error, model)
            is_silent = verb == DESCRIBE and _status(error) == "DEADLINE_EXCEEDED"
            if is_silent or _status(error) == "UNAVAILABLE":  # a cut that drops packets is silent
                self._renew(client)
            if isinstance(failure, ModelDown):
                self.on_down(model)
            raise failure from error
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise ModelDown(f"{model}: the call was abandoned") from None  # by `give_up` or `reconnect`


def _status(error: InferenceServerException) -> str:
    """The name of gRPC's status code."""
    return str(error.status()).removeprefix("StatusCode.")


def _listed(verbs: Mapping[str, str]) -> str:
    """`score 1f2e3d, decode 4c5b6a`; "of an older version" when a model reports none."""
    return ", ".join(f"{name} {fingerprint}" for name, fingerprint in verbs.items()) or "of an older version"


def _input(name: str, tensor: NDArray[Any]) -> InferInput:
    infer_input = InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
    return infer_input.set_data_from_numpy(np.ascontiguousarray(tensor))


def _outputs(result: InferResult, names: tuple[str, ...]) -> Tensors:
    tensors = {name: result.as_numpy(name) for name in names}
    missing = [name for name, tensor in tensors.items() if tensor is None]
    if missing:
        raise BackendError(f"expected outputs {', '.join(names)}, got none of {', '.join(missing)}")
    return tensors


def _check(verb: str, signature: Verb, outputs: Tensors) -> None:
    """Raises BackendError when an output does not fit the signature table. Triton itself does not check outputs."""
    for name, (dtype, shape) in signature.outputs.items():
        tensor = outputs[name]
        fixed = [None, *(int(letter) if letter.isdigit() else None for letter in shape.split())]
        fits = len(fixed) == tensor.ndim and all(
            want in (None, have) for want, have in zip(fixed, tensor.shape, strict=True)
        )
        if tensor.dtype != dtype or not fits:
            raise BackendError(
                f"{verb}: output {name}: expected {dtype} [G {shape}], got {tensor.dtype} {tensor.shape}"
            )


def _sizes(tensors: Tensors) -> dict[str, int]:
    return {name: tensor.nbytes for name, tensor in tensors.items()}


def _typed(error: InferenceServerException, model: str) -> WavserveError:
    """The error that the model sent, or else ours for Triton's status and message."""
    message = str(error.message())
    if (sent := remote_errors.decode(message)) is not None:
        return sent
    match _status(error):
        case "DEADLINE_EXCEEDED":
            return DeadlineExceeded(f"{model}: no answer before the deadline")
        case "CANCELLED":
            return Cancelled(f"{model}: the call was cancelled")
        case "UNAVAILABLE":
            return ModelDown(f"{model}: the server is unavailable: {message}")
        case _ if any(words in message for words in _DOWN):
            return ModelDown(f"{model}: {message}")
        case _:
            return BackendError(f"{model}: {message}")
