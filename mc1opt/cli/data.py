"""`mc1opt data`: locating and downloading the images."""

import sys

from mc1opt.cli.options import Data, Json, print_result


def data(data: Data = None, as_json: Json = False) -> None:
    """Show where the images are; download them if they are missing.

    Prints source, sizes and verified hashes.

    \b
    Examples:
      mc1opt data
      mc1opt data --data path/to/cifar-10-binary.tar.gz
    """
    from mc1opt.data.sources import describe_data

    report = describe_data(data, output=sys.stderr if as_json else sys.stdout)
    print_result(report.to_json(), report.lines(), as_json)
