"""What an error of the Redis client means for sessions: in words without a password, and whether it mends itself.

Knows no call and no setting.
"""

from __future__ import annotations

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, OutOfMemoryError, ResponseError

_MAX_CHARS = 200
_SCRIPT = "Error running script"
"""So Redis 6 begins what a command in a script answered, whatever that is."""
_ARGUMENTS = ", with args beginning with"
"""An unknown command is told with its arguments. Of HELLO, which Redis 5 does not know, one is the password."""
_LOGIN = (AuthenticationError, AuthorizationError)


def is_final(error: BaseException) -> bool:
    """Whether Redis answered, and will answer so until somebody changes its configuration or ours.

    A wrong command, argument or database stays wrong. What a server says that is full, is a replica, loads its data or
    has too many clients passes by itself.
    """
    if isinstance(error, (*_LOGIN, NoPermissionError)):
        return True
    is_of_script = str(error).startswith(_SCRIPT)
    return type(error) is ResponseError and error.status_code == "ERR" and not is_of_script


def is_full(error: BaseException) -> bool:
    """Whether Redis stored nothing, for want of room."""
    return isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "-OOM " in str(error))


def reason(error: BaseException, operation: str) -> str:
    """What Redis did in an operation. Of its own words only an answer is told: others could have a URL's password."""
    if isinstance(error, _LOGIN):
        return f"refused the user or password: {operation}"
    if isinstance(error, ResponseError):
        said, *_ = str(error).split(_ARGUMENTS)
        return f"refused a call: {operation}: {said[:_MAX_CHARS]}"
    because = f" ({type(error.__context__).__name__})" if isinstance(error.__context__, OSError) else ""
    return f"did not answer: {operation}: {type(error).__name__}{because}"
