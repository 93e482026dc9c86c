"""Whom the monthly quota lets in: the same arithmetic in every database."""

from collections.abc import Mapping, Sequence

from mintoken.models import Admission, Reservation


def admit(
    reservations: Sequence[Reservation], standing: Mapping[tuple[str, str], tuple[int, int, int]]
) -> dict[str, Admission]:
    """Who is let in, in their order: each needs room for its `needed_tokens` (contract §5).

    `standing` has of each account and month the limit (-1 if there is no such account, 0 if it is
    unlimited), the used and the reserved tokens.
    """
    admissions: dict[str, Admission] = {}
    reserved = {month: standing[month][2] for month in standing}
    for one in reservations:
        month = one.account_id, one.month
        limit, used, _ = standing[month]
        fits = limit == 0 or used + reserved[month] + one.needed_tokens <= limit
        if fits and one.id not in admissions:
            reserved[month] += one.reserved_tokens
        admissions.setdefault(one.id, Admission(fits, used, max(limit, 0)))
    return admissions
