"""What a VM's handle is in both clients."""

from .errors import VmReplaced
from .models import VmInfo


class Handle:
    def __init__(self, info: VmInfo) -> None:
        self.info = info

    @property
    def id(self) -> str:
        return self.info.id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.info.state!r})"

    def _keep(self, info: VmInfo) -> VmInfo:
        """An id is free once its VM has ended: what is told must be about the one we know."""
        self._same(info.instance)
        self.info = info
        return info

    def _same(self, instance: str) -> None:
        if instance != self.info.instance:
            raise VmReplaced(f"{self.id} is another VM now: the one that had this id has ended")
