"""`mc1opt data`: getting and examining the images."""

import sys

from mc1opt.cli.options import Data, ImageSize, Json, MaxUnreadable, print_result
from mc1opt.cli.values import at_least


def data(
    data: Data = None,
    image_size: ImageSize = None,
    max_unreadable: MaxUnreadable = None,
    as_json: Json = False,
) -> None:
    """Show and examine the images; download them if need be.

    Prints source, hashes, counts of each class, and what is wrong with the images: unreadable files,
    duplicates, also between training and test, classes too small to validate; and how small a difference of
    two trainings the validation images can show.

    \b
    Examples:
      mc1opt data
      mc1opt data --data fashion_mnist
      mc1opt data --data path/to/photographs --image-size 48
    """
    at_least(max_unreadable, 0, "--max-unreadable")

    from mc1opt.data.report import describe_data

    report = describe_data(
        data,
        image_size=image_size,
        max_unreadable=max_unreadable,
        output=sys.stderr if as_json else sys.stdout,
    )
    print_result(report.to_json(), report.lines(), as_json)
