"""Every error Attnscope raises on purpose, in one tree.

::

    AttnscopeError                  what a page or the command line says, in words
    ├── InvalidCall                 shapes, dtypes or rules that contradict each other (a ValueError)
    ├── UnknownBackend              no backend of that name (a ValueError)
    ├── UnknownPattern              no pattern of that key, or wrong parameters (a ValueError)
    ├── UnsupportedCall             a backend refuses this call on this device; carries the Refusal
    ├── ModelError                  a model that cannot be used as asked
    │   ├── ModelNotFound           no such folder, repository or revision
    │   ├── ModelAccessDenied       gated or private: needs a licence or a token
    │   ├── ModelUnreachable        the hub cannot be reached and the model is not in the cache
    │   ├── ModelUnsafe             pickled weights or code of its own: never loaded
    │   ├── ModelTooLarge           does not fit the memory there is
    │   ├── ModelUnsupported        a kind of model this product cannot load or tokenise
    │   └── ModelNotSwappable       its attention cannot be reached through transformers' interface
    ├── PromptRefused               an empty, over-long, undecodable or misshapen prompt or upload
    ├── CaptureTooLarge             would hold more bytes than the budget; says how many
    ├── CaptureMissing              no capture of that id (expired, evicted, never made)
    ├── JobCancelled                the visitor asked for it
    ├── JobFailed                   a job ended with a reason (its worker died, its work raised)
    ├── JobMissing                  no job of that id, or it has no result yet
    ├── QueueFull                   one visitor has too many jobs waiting
    ├── EngineUnavailable           the worker is being replaced, is too busy, or never started
    ├── RecordUnreadable            a stored record that is damaged or of another schema (a ValueError)
    ├── RunMissing                  no run of that id in the history
    ├── HistoryUnavailable          the history cannot be opened, read or written; says why
    │   └── HistoryDamaged          its file is damaged; opened anew, it is set aside and kept
    ├── ImagesUnavailable           PNG, SVG or PDF without a browser to draw them
    └── InvalidSetting              an ATTNSCOPE_* variable cannot be read (a ValueError)

Messages say what was wrong, with the value, and what to do next. `remedy` is shown beside the
message where it helps to set it apart.
"""


class AttnscopeError(Exception):
    """Base of every error raised on purpose; `str()` is fit for a visitor's eyes.

    Args:
        message: What was wrong, with the value.
        remedy: What to do about it, or an empty string when the message says so itself.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.message, self.remedy)


class InvalidCall(AttnscopeError, ValueError):
    """Shapes, dtypes or rules that contradict each other."""


class UnknownBackend(AttnscopeError, ValueError):
    """No backend is registered under that name."""


class UnknownPattern(AttnscopeError, ValueError):
    """No pattern has that key, or its parameters are wrong."""


class UnsupportedCall(AttnscopeError):
    """A backend refuses this call on this device."""


class ModelError(AttnscopeError):
    """A model that cannot be used as asked."""


class ModelNotFound(ModelError):
    """No such folder, repository or revision."""


class ModelAccessDenied(ModelError):
    """Gated or private: a licence must be accepted, or a token given."""


class ModelUnreachable(ModelError):
    """The hub cannot be reached and the model is not in the local cache."""


class ModelUnsafe(ModelError):
    """Pickled weights, or code of its own; neither is ever run."""


class ModelTooLarge(ModelError):
    """The weights do not fit the memory there is."""


class ModelUnsupported(ModelError):
    """A kind of model that this product cannot load or tokenise."""


class ModelNotSwappable(ModelError):
    """The model's attention cannot be reached through transformers' attention interface."""


class PromptRefused(AttnscopeError, ValueError):
    """An empty, over-long, undecodable or misshapen prompt or upload."""


class CaptureTooLarge(AttnscopeError):
    """A capture would hold more bytes than its budget."""


class CaptureMissing(AttnscopeError):
    """No capture of that id is held."""


class JobCancelled(AttnscopeError):
    """The job was cancelled on request."""


class JobFailed(AttnscopeError):
    """A job ended with a reason."""


class JobMissing(AttnscopeError):
    """No job of that id is known, or it has no result."""


class QueueFull(AttnscopeError):
    """One visitor already has as many jobs waiting as is allowed."""


class EngineUnavailable(AttnscopeError):
    """The worker is being replaced, did not answer in time, or was never started."""


class RecordUnreadable(AttnscopeError, ValueError):
    """A stored record is damaged, or of a schema that this version does not read."""


class RunMissing(AttnscopeError):
    """No run of that id is in the history."""


class HistoryUnavailable(AttnscopeError):
    """The history of runs cannot be opened, read or written."""


class HistoryDamaged(HistoryUnavailable):
    """The file of the history is damaged."""


class ImagesUnavailable(AttnscopeError):
    """PNG, SVG and PDF cannot be drawn here."""


class InvalidSetting(AttnscopeError, ValueError):
    """A setting in the environment cannot be read."""
