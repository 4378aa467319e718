"""Which kernel computed which part: parts of several kernels differ in their last digits.

A line of kernels.txt, beside the results, is PART and what computed it, with a tab between.
"""
from engine.files import append_line
from engine.progress import kernel_now

FILE = 'kernels.txt'


def note(folder, part, kernel):
    """Enters what computes a part from now on."""
    if part not in _by_kernel(folder).get(kernel, ()):
        append_line(folder / FILE, f'{part}\t{kernel}')


def several(folder):
    """Lines that tell which part was computed by what; none where one kernel did all."""
    found = _by_kernel(folder)
    if len(found) < 2:
        return []
    return ['computed by several kernels, whose numbers differ in their last digits:',
            *(f'  part{"s" * (len(parts) > 1)} {", ".join(map(str, sorted(parts)))}: {kernel}'
              for kernel, parts in found.items())]


def _by_kernel(folder):
    """{kernel: numbers of its parts}."""
    try:
        text = (folder / FILE).read_text(encoding='utf-8', errors='replace')
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        part, _, kernel = line.partition('\t')
        if part.isdecimal() and kernel:
            found.setdefault(kernel_now(kernel), set()).add(int(part))
    return found
