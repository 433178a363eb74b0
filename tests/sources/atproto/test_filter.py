"""The filter: which accounts count, which of their records are stored, and what a changed filter does to the store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.repos import Archive
from tests.upstreams.pds import Network
from tickwork.contract.outcomes import OperatorError
from tickwork.sources.atproto.filter import Filter
from tickwork.sources.atproto.settings import FilterSettings

COLLECTIONS = (
    "app.bsky.feed.post",
    "app.bsky.feed.like",
    "app.bsky.feedback",
    "app.bsky.graph.follow",
    "com.example.notes.entry",
)
ALL = {f"{collection}/3kaaaaaaaaaa{n}": {"n": n} for n, collection in enumerate(COLLECTIONS, 2)}


def chosen(collections: tuple[str, ...] = (), signals: tuple[str, ...] = (), excludes: tuple[str, ...] = ()) -> str:
    """Settings with this filter."""
    mode = "filter" if collections or signals else "full"
    named = {"collections": collections, "signals": signals, "excludes": excludes}
    return f'[atproto.filter]\nmode = "{mode}"\n' + "".join(f"{k} = {list(v)}\n" for k, v in named.items() if v)


def found(archive: Archive, network: Network, config: str) -> None:
    """Discover and fetch everything with these settings."""
    hosts = [host.url for host in network.hosts]
    archive.configure(f"hosts = {hosts}\n{config}")
    archive.good("discover")
    archive.drain()


def only(truth: dict[str, str], *collections: str) -> dict[str, str]:
    return {path: cid for path, cid in truth.items() if path.partition("/")[0] in collections}


# --- patterns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("app.bsky.feed.*", {"app.bsky.feed.post", "app.bsky.feed.like"}),
        ("app.bsky.*", {"app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feedback", "app.bsky.graph.follow"}),
        ("app.bsky.feedback", {"app.bsky.feedback"}),
        ("com.*", {"com.example.notes.entry"}),
        ("app.bsky.feed.pos", set()),
    ],
)
def test_a_pattern_matches_what_is_below_its_dot_and_nothing_that_only_begins_alike(
    pattern: str, matching: set[str]
) -> None:
    wanted = Filter(FilterSettings(mode="filter", collections=(pattern,)))
    assert set(filter(wanted.wants, COLLECTIONS)) == matching


labels = st.sampled_from(("app", "bsky", "feed", "feedb", "a"))
names = st.lists(labels, min_size=3, max_size=5).map(".".join)


@given(st.lists(names | names.map(lambda name: f"{name.rpartition('.')[0]}.*"), min_size=1, max_size=4), names)
def test_matching_is_by_whole_parts_of_a_name(patterns: list[str], collection: str) -> None:
    wanted = Filter(FilterSettings(mode="filter", collections=tuple(patterns)))

    def matches(pattern: str) -> bool:
        parts, given = pattern.split("."), collection.split(".")
        if parts[-1] != "*":
            return parts == given
        return len(given) >= len(parts) and given[: len(parts) - 1] == parts[:-1]

    for _ in range(2):  # the second answer is a remembered one
        assert wanted.wants(collection) == any(map(matches, patterns))
    assert not wanted.is_signal(collection)


@pytest.mark.parametrize(
    "pattern", ["*", ".*", "app.bsky.feed.post*", "app.*.post", "app", "app.bsky.feed.*.*", "APP BSKY", "", "app..*"]
)
@pytest.mark.parametrize("key", ["collections", "signals"])
def test_a_pattern_that_is_none_is_named(key: str, pattern: str) -> None:
    with pytest.raises(OperatorError, match=r"^\[atproto.filter\] .* is neither a collection nor a pattern") as error:
        Filter(FilterSettings(mode="filter", **{key: ("app.bsky.feed.post", pattern)}))
    assert repr(pattern) in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (FilterSettings(mode="filter"), "mode filter needs collections or signals"),
        (FilterSettings(signals=("app.bsky.*",)), "have no effect with mode full: set mode filter"),
        (FilterSettings(excludes=("alice.example",)), "excludes: 'alice.example' is not a valid DID"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(settings: FilterSettings, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        Filter(settings)


# --- what is stored ----------------------------------------------------------------------------------


def test_only_the_collections_are_stored(archive: Archive, network: Network) -> None:
    did = network.add(0, records=ALL).did
    found(archive, network, chosen(("app.bsky.feed.*", "com.example.notes.entry")))
    truth = only(network.truth(did), "app.bsky.feed.post", "app.bsky.feed.like", "com.example.notes.entry")
    assert len(truth) == 3
    archive.judge({did: truth})


def test_a_signal_outside_the_collections_counts(archive: Archive, network: Network) -> None:
    signalled = network.add(0, records=ALL).did
    without = network.add(1, records=dict(list(ALL.items())[:4])).did
    found(archive, network, chosen(("app.bsky.feed.post",), ("com.example.*",)))
    truth = only(network.truth(signalled), "app.bsky.feed.post")
    archive.judge({signalled: truth, without: {}})
    assert (archive.repo(signalled)["status"], archive.repo(without)["status"]) == ("synced", "discarded")


def test_a_repository_without_a_signal_is_discarded_and_not_asked_for_again(archive: Archive, network: Network) -> None:
    did = network.add(0, records={"app.bsky.feed.post/a": {}}).did
    found(archive, network, chosen(signals=("app.bsky.graph.*",)))
    row = archive.repo(did)
    assert (row["status"], row["tracked"], row["next_retry"]) == ("discarded", 0, None)
    assert archive.events() == []
    asked = len(network.requests())
    found(archive, network, chosen(signals=("app.bsky.graph.*",)))
    assert {seen.method for seen in network.requests()[asked:]} <= {"listRepos", "listReposByCollection"}
    assert did not in archive.good("repos")
    assert did in archive.good("repos", "--all")


def test_a_repository_added_by_name_is_kept_without_a_signal(archive: Archive, network: Network) -> None:
    did = network.add(0, records={"app.bsky.feed.post/a": {}}).did
    archive.configure(chosen(signals=("app.bsky.graph.*",)))
    archive.sync(did)
    archive.judge(network.truths())
    assert len(archive.stored(did)) == 1


def test_adding_a_discarded_repository_by_name_keeps_it(archive: Archive, network: Network) -> None:
    did = network.add(0, records={"app.bsky.feed.post/a": {}}).did
    found(archive, network, chosen(signals=("com.example.*",)))
    assert archive.repo(did)["status"] == "discarded"
    archive.sync(did)
    archive.judge(network.truths())
    assert archive.repo(did)["status"] == "synced"


def test_discarding_a_repository_that_was_stored_deletes_its_records_with_events(
    archive: Archive, network: Network
) -> None:
    did = network.add(0, records=ALL).did
    other = network.add(1, records=ALL).did  # has the same blocks
    config = chosen(signals=("com.example.*",))
    found(archive, network, config)
    archive.judge(network.truths())
    network.edit(did, {}, [path for path in ALL if path.startswith("com.")])
    found(archive, network, config)
    archive.judge({did: {}, other: network.truth(other)})
    deletes = [event for event in archive.events(did) if event["action"] == "delete"]
    assert [f"{event['collection']}/{event['rkey']}" for event in deletes] == sorted(ALL)
    assert {event["rev"] for event in deletes} == {network.accounts[did].rev}


def test_a_discarded_repository_counts_again_once_it_has_a_signal(archive: Archive, network: Network) -> None:
    did = network.add(0, records={"app.bsky.feed.post/a": {}}).did
    config = chosen(signals=("app.bsky.graph.*",))
    found(archive, network, config)
    assert archive.repo(did)["status"] == "discarded"
    network.put(did, "app.bsky.graph.follow/b", {})
    found(archive, network, config)
    archive.judge(network.truths())
    assert len(archive.stored(did)) == 2


# --- changing it -------------------------------------------------------------------------------------


def test_after_each_change_of_the_filter_the_store_equals_the_newly_filtered_truth(
    archive: Archive, network: Network
) -> None:
    """Also without the account having changed, which costs a whole fetch, and with the settings read anew."""
    full = network.add(0, records=ALL).did
    posts = network.add(1, records={"app.bsky.feed.post/a": {}}).did
    for config, of_full, of_posts in (
        (chosen(("app.bsky.feed.*",)), ("app.bsky.feed.post", "app.bsky.feed.like"), COLLECTIONS),
        (chosen(("app.bsky.feedback",)), ("app.bsky.feedback",), ()),
        (chosen(), COLLECTIONS, COLLECTIONS),
        (chosen(("app.bsky.feed.post",), ("com.*",)), ("app.bsky.feed.post",), ()),
        (chosen(("app.bsky.feed.post",)), ("app.bsky.feed.post",), COLLECTIONS),
        (chosen(), COLLECTIONS, COLLECTIONS),
    ):
        found(archive, network, config)
        archive.judge({full: only(network.truth(full), *of_full), posts: only(network.truth(posts), *of_posts)})
        assert archive.rows("SELECT * FROM repos WHERE next_retry IS NOT NULL") == []


def test_the_order_of_patterns_and_their_repetition_change_nothing(archive: Archive, network: Network) -> None:
    network.add(0, records=ALL)
    found(archive, network, chosen(("app.bsky.feed.post", "com.*")))
    asked = len(network.requests(method="getRepo"))
    found(archive, network, chosen(("com.*", "app.bsky.feed.post", "com.*")))
    assert len(network.requests(method="getRepo")) == asked


def test_a_filter_that_changes_while_a_pass_stores_by_the_old_one_reaches_what_it_stored(
    archive: Archive, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    did = network.add(0, records=ALL).did
    account, whole = network.accounts[did], network.accounts[did].revision()
    hosts = [host.url for host in network.hosts]
    archive.configure(f"hosts = {hosts}\n")
    archive.good("add", did)

    def revision() -> object:
        # The settings change, and another command reads them, while the repository is on its way.
        monkeypatch.undo()
        archive.configure(f"hosts = {hosts}\n{chosen(('app.bsky.feed.post',))}")
        assert archive.start("discover", "--host", "http://127.0.0.1:9").wait() == 3
        return whole

    monkeypatch.setattr(account, "revision", revision)
    archive.backfill()
    assert archive.repo(did)["status"] == "synced"
    archive.drain()
    archive.judge({did: only(network.truth(did), "app.bsky.feed.post")})


# --- excluded accounts -------------------------------------------------------------------------------


def test_an_excluded_account_is_neither_found_nor_added_nor_fetched(archive: Archive, network: Network) -> None:
    did, other = network.add(0).did, network.add(0).did
    config = chosen(excludes=(did,))
    found(archive, network, config)
    assert [row["did"] for row in archive.rows("SELECT did FROM repos")] == [other]
    said = archive.run("add", did)
    assert (said.code, said.out) == (2, "")
    assert f"{did} is excluded in [atproto.filter]" in said.err


def test_an_account_excluded_later_is_left_alone_until_it_no_longer_is(archive: Archive, network: Network) -> None:
    did = network.add(0, records=ALL).did
    found(archive, network, "")
    before = network.truth(did)
    network.delete(did, next(iter(ALL)))
    asked = len(network.requests())
    found(archive, network, chosen(excludes=(did,)))
    assert archive.run("resync", did).code == 2
    archive.drain()
    assert [seen.did for seen in network.requests()[asked:] if seen.did] == []
    archive.judge({did: before})
    found(archive, network, chosen())
    archive.judge(network.truths())
    assert archive.repo(did)["tracked"] == 1
