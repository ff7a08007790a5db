"""What a judge finds."""

FINDINGS_SHOWN = 5


class Findings:
    """Findings by what they are against; of many alike only the first are spelled out."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, against: str, what: str) -> None:
        """Add one."""
        self._found.setdefault(against, []).append(what)

    def expect(self, against: str, what: str, *, holds: bool) -> None:
        """Add one unless what was expected holds."""
        if not holds:
            self.add(against, what)

    def listed(self) -> tuple[str, ...]:
        """All of them, a line each."""
        result = []
        for against, whats in self._found.items():
            result += [f"{against}: {what}" for what in whats[:FINDINGS_SHOWN]]
            if len(whats) > FINDINGS_SHOWN:
                result.append(f"{against}: … and {len(whats) - FINDINGS_SHOWN} more")
        return tuple(result)
