"""Every error masbook raises on purpose, in one tree; each says when it is raised and what to do.

MasbookError
├── InvalidValue            an argument is out of range or of the wrong kind (also a ValueError)
│   ├── InvalidName             an agent's name is empty, not text, or taken
│   ├── NotAsync                a scenario, capability or handler is not `async def`
│   ├── Unrecordable            a value cannot be written into the trace
│   └── InvalidWorkflow         the tasks of a workflow cannot be put in an order, or nobody can do one
├── InvalidInput            a capability was called with a wrong or missing field
├── UnknownRecipient        nobody of that name is in the world (also a LookupError)
├── UnknownCapability       the recipient has no such capability or handler (also a LookupError)
├── Undeliverable           the message could not be handed over
│   ├── AgentOffline            the recipient has stopped or crashed
│   └── MailboxFull             its mailbox is full and its policy says `reject`
├── RequestTimeout          no reply in time (also a TimeoutError)
├── RequestCycle            the request would wait for its own sender
├── AgentCrashed            the agent crashed while it worked on the request
│   └── InjectedCrash           a FaultPlan ordered the crash
├── Refused                 the security policy forbids it
│   └── ForgedSender            the signature is not the sender's
├── ProtocolViolation       a message does not fit the conversation's protocol
├── WorkerBusy              a worker has its hands full and takes no more work
├── TaskFailed              a task came to no result, and whoever asked for it must know why
├── LockTimeout             a lock or permit was not to be had in time (also a TimeoutError)
├── NotHeld                 who does not hold a lock or permit tried to release or use it
├── BarrierBroken           a party of the barrier came too late, crashed or stopped
├── VersionConflict         somebody else has written since the value was read
├── QuorumMissed            too few replicas answered
├── ModelError              a language model, or what stands in for one, gave no answer that can be used
│   ├── UnknownModel            no model of that name (also an InvalidValue)
│   ├── MissingKey              the provider's key is not set, or not accepted
│   ├── ModelTimeout            no answer within the deadline (also a TimeoutError)
│   ├── ModelRateLimited        the provider wants fewer calls
│   ├── ModelUnavailable        the provider cannot be reached, or failed
│   ├── ModelRefused            the provider does not accept the request
│   ├── ModelMisbehaved         an answer that cannot be read, or does not fit the output type
│   ├── LimitReached            a conversation or task has used up its hops, calls or tokens
│   ├── ScriptExhausted         a script has no answer left for this call
│   ├── ScriptUnused            the world ended before the script did
│   ├── RecordingMismatch       a request differs from the recording
│   └── InvalidRecording        no recording, or one of another version
└── WorldError              the world cannot go on as asked
    ├── Stuck                   nothing can happen any more, or time stands still
    ├── BlockedLoop             a handler holds the thread: `time.sleep`, or never awaiting
    ├── NestedRun               a run inside a run
    ├── NeedsRealClock          network or processes in a virtual world
    └── WorldClosed             the world has been closed
"""

from __future__ import annotations

import re


class MasbookError(Exception):
    """The root of the tree: `except MasbookError` catches whatever masbook raises on purpose."""


class InvalidValue(MasbookError, ValueError):
    """An argument is out of range or of the wrong kind; the message names it and the values allowed."""


class InvalidName(InvalidValue):
    """An agent's name is empty, not text, or taken; choose another."""


class NotAsync(InvalidValue):
    """Something that must be a coroutine function is not; write `async def`."""


class Unrecordable(InvalidValue):
    """A value cannot be written into the trace; send numbers, text, lists, dicts or pydantic models."""


class InvalidInput(MasbookError):
    """A capability was called with a wrong or missing field; the message names the field and what is expected."""


class UnknownRecipient(MasbookError, LookupError):
    """Nobody of that name is in the world; spawn it first, or correct the name."""


class UnknownCapability(MasbookError, LookupError):
    """The recipient has no such capability or handler; the message lists those it has."""


class Undeliverable(MasbookError):
    """The message could not be handed over; it is among the dead letters with the reason."""


class AgentOffline(Undeliverable):
    """The recipient has stopped or crashed; restart it or ask another."""


class MailboxFull(Undeliverable):
    """The recipient's mailbox is full and its policy is `reject`; send less, or choose `block`."""


class RequestTimeout(MasbookError, TimeoutError):
    """No reply came in time; raise `timeout`, or find in the trace where the request stayed."""


class RequestCycle(MasbookError):
    """The request would wait for an agent that waits for this one; use `tell`, or raise its `concurrency`."""


class AgentCrashed(MasbookError):
    """The agent crashed while it worked on the request; supervise it with `restart=`, or ask again."""


class InjectedCrash(AgentCrashed):
    """The crash that a FaultPlan ordered; not an error of the agent."""


class Refused(MasbookError):
    """The security policy forbids this message or subscription; the message names the rule."""


class ForgedSender(Refused):
    """The signature is not the sender's; send through the agent itself."""


class ProtocolViolation(MasbookError):
    """A message does not fit the conversation's protocol; the message lists the steps allowed next."""


class InvalidWorkflow(InvalidValue):
    """Tasks with one id, a dependency that is not there, a cycle, or work that nobody can do; the message names it."""


class WorkerBusy(MasbookError):
    """A worker has its hands full and rejects more work; ask another, or ask it `when_free` first."""


class TaskFailed(MasbookError):
    """A task failed, expired or was cancelled; the message says which and why."""


class LockTimeout(MasbookError, TimeoutError):
    """A lock or permit was not to be had in time; the message says who holds it. Wait longer, or hold less."""


class NotHeld(MasbookError):
    """Somebody released or used what it does not hold: never acquired, released already, or its lease has run out."""


class BarrierBroken(MasbookError):
    """A party came too late, crashed or stopped, so that nobody passes; call `reset()` before it is used again."""


class VersionConflict(MasbookError):
    """The value has another version than expected: somebody wrote in between; read it again, or use `update`."""


class QuorumMissed(MasbookError):
    """Too few replicas answered; the message says how many. What was written may still be seen by some readers."""


class ModelError(MasbookError):
    """A model gave no answer that can be used; each kind below says why. Keys are never part of the message."""


class UnknownModel(ModelError, InvalidValue):
    """No model of that name; the message lists the forms that there are."""


class MissingKey(ModelError):
    """The provider's key is not set or not accepted; the message names the environment variable to set."""


class ModelTimeout(ModelError, TimeoutError):
    """No answer within the deadline, all attempts included; raise `timeout`, or take a faster model."""


class ModelRateLimited(ModelError):
    """The provider wants fewer calls (429), and waiting as long as it asked is not possible; call less often.

    `retry_after` is how many seconds the provider asked to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelUnavailable(ModelError):
    """The provider cannot be reached, or failed (5xx), in every attempt; try later, or take another model."""


class ModelRefused(ModelError):
    """The provider does not accept the request (4xx): too long, not permitted; the message repeats its reason."""


class ModelMisbehaved(ModelError):
    """The answer cannot be read or does not fit the output type, also after asking again; the message says where."""


class LimitReached(ModelError):
    """A conversation or task has used up its hops, calls, tokens or cost; raise the limit that the message names."""


class ScriptExhausted(ModelError):
    """A script has no answer left, or none that matches this request; add one, or call the model less often."""


class ScriptUnused(ModelError):
    """The world ended before the script did; the message lists the answers that nobody asked for."""


class RecordingMismatch(ModelError):
    """A request differs from the recording; the message says where. Record it again, or undo the change."""


class InvalidRecording(ModelError, InvalidValue):
    """There is no recording of that name, it is damaged, or it is of another version; record it again."""


class WorldError(MasbookError):
    """The world cannot go on as asked."""


class Stuck(WorldError):
    """Nothing can happen any more, or time stands still; the message says who waits for whom."""


class BlockedLoop(WorldError):
    """A handler holds the thread of the world; use `await agent.sleep(...)`, and await inside long loops."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or "a handler kept the world's thread without awaiting anything; "
            "await agent.sleep(0) inside long loops, or give the world more `patience`"
        )


class NestedRun(WorldError):
    """A run was started inside a run; `await` the coroutine instead."""


class NeedsRealClock(WorldError):
    """Network and processes need the wall clock; make the world with `World(clock="real")`."""


class WorldClosed(WorldError):
    """The world has been closed; make a new one."""


def describe(error: BaseException) -> str:
    """Return what an error says, without addresses of objects: they differ from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(error))


def explained(error: Exception) -> Exception:
    """Return asyncio's error about a loop inside a loop as NestedRun, which says what to write; others as they are."""
    if isinstance(error, RuntimeError) and ("running event loop" in str(error) or "already running" in str(error)):
        nested = NestedRun(f"{error}; a world is running here: `await` the coroutine instead")
        nested.__cause__ = error
        return nested
    return error
