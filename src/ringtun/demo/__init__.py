"""The demonstration: two adapters, a program between them, and what goes across.

``run`` measures and prints nothing; ``ringtun demo`` (`ringtun.cli.demo`) shows it. To read in this
order: `runner` (one run), `world` (where it runs), `kernel` (the measurements in turn), `forwarder`
(the program that joins the two adapters), `ping`, `tcp` and `udp` (one measurement each; `peer` is
the process at either end), `memory` (the last resort, where there is no kernel TUN) and `report`
(the result).
"""

from __future__ import annotations

from ringtun.demo.runner import run

__all__ = ["run"]
