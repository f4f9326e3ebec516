"""KernelStatus: the part of a panel that says, in the browser, that its kernel is gone.

Why JavaScript: nobody but the page is left to say it. ipywidgets itself draws a broken-link icon over every control.
"""

from pathlib import Path

import traitlets

from ...figures.widget import Widget


class KernelStatus(Widget):
    """Invisible while the kernel lives. Where it was restarted, closed or lost, the panel around it becomes grey and
    inert, and a sentence says what to do.
    `key`, the model's id, names the still picture of the panel, which is hidden where this is shown.
    """

    _esm = Path(__file__).with_name("kernel_status.js").read_text(encoding="utf-8")

    gone = traitlets.Unicode("The kernel of this panel is gone; run this cell again to use it.").tag(sync=True)
    unreachable = traitlets.Unicode(
        "The kernel of this panel cannot be reached; what is shown may be old. Check that the server runs."
    ).tag(sync=True)
