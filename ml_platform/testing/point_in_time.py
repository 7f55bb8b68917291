"""The point-in-time rule, held against one feature view of the project."""

from ml_platform.testing.as_of_join import compare_join
from ml_platform.testing.home import SampleHome
from ml_platform.testing.look_ahead import compare_earlier_states


def check_view_is_point_in_time(view: str, home: SampleHome) -> None:
    """Check, on a sample and by brute force, that a feature view never gives a training row what was not known yet.

    These are compared:

    - *no look-ahead in the view itself*: the view is computed again from its sources as they were at four instants of
      the sample; its rows up to each instant must be the same then and now. By when a row of a source was known is
      taken from `sample_home(arrives=…)`, see there; a source without any time counts as known from the beginning.
    - *the promise of an incremental view*: from its last earlier state, the days that later rows affect are computed
      anew; the result must be the view as it is when it is computed as a whole.
    - *the as-of join*: what the engine joins to some hundred rows of a spine is what a plain loop over the view's rows
      finds: the newest row with event time ≤ the row's timestamp, its age at most the TTL, of equal times the one
      created last, null where there is none.

    It shows nothing of rows outside the sample; nor that a row of a source was really known at the time that it says.
    The four instants are some at which something became known, so that a view on a grid of hours, which goes on to the
    newest event, has reached them: a row that counts too early by less than the time between two events passes.

    Parameters
    ----------
    view
        Name of the view.
    home
        Where sample and view are computed.

    Raises
    ------
    AssertionError
        If values differ, with the rows; or if the view has no rows on the sample, so that nothing would be compared.
    """
    declared = home.view(view)
    compared = compare_earlier_states(declared, home)
    matched = compare_join(home.lake, declared)
    if compared == 0 or matched == 0:
        raise AssertionError(
            f"view '{view}': wanted rows to compare, found that {compared or 0} were compared with earlier states and "
            f"{matched} with the brute-force join. Load more days of {', '.join(declared.source_tables)}, or give them "
            "a sample file that has rows over some time (see sample_home)"
        )
