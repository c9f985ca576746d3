"""Pages of several workers as one, in the form that Prometheus' own parsers take."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from gateway.telemetry.merging import labelled, merged

PAGE = b"""# HELP a_total Things.
# TYPE a_total counter
a_total{x="1 {2}"} 3
a_total{x="y"} 4
# HELP b Now.
# TYPE b gauge
b 5.0
"""
OTHER = b"""# HELP a_total Things.
# TYPE a_total counter
a_total{x="y"} 40
# HELP c Only here.
# TYPE c gauge
c 6.0
"""
OPEN = b"""# HELP h Seconds.
# TYPE h histogram
h_bucket{le="1.0"} 1 # {trace_id="abc"} 0.5
h_bucket{le="+Inf"} 1
h_count 1
h_sum 0.5
# EOF
"""


def samples(page: bytes) -> dict[tuple[str, str, str], float]:
    return {
        (s.name, s.labels["worker"], s.labels.get("x", "")): s.value
        for family in text(page.decode())
        for s in family.samples
    }


async def test_every_sample_of_every_worker_is_there_once() -> None:
    page = await merged({1: PAGE, 2: OTHER})
    assert samples(page) == {
        ("gateway_worker_up", "1", ""): 1,
        ("gateway_worker_up", "2", ""): 1,
        ("a_total", "1", "1 {2}"): 3,
        ("a_total", "1", "y"): 4,
        ("a_total", "2", "y"): 40,
        ("b", "1", ""): 5,
        ("c", "2", ""): 6,
    }


async def test_a_family_is_in_one_piece() -> None:
    lines = (await merged({1: PAGE, 2: OTHER})).decode().splitlines()
    names = [line.split(" ")[2] for line in lines if line.startswith("# TYPE")]
    assert names == ["gateway_worker_up", "a_total", "b", "c"]
    assert [line.partition("{")[0] for line in lines if "a_total{" in line] == ["a_total"] * 3


async def test_a_worker_that_does_not_answer_is_shown_as_down() -> None:
    page = await merged({1: PAGE, 2: None})
    assert samples(page)["gateway_worker_up", "2", ""] == 0
    assert not [key for key in samples(page) if key[:2] == ("a_total", "2")]


async def test_openmetrics_keeps_its_exemplars_and_its_one_end() -> None:
    page = (await merged({1: OPEN, 2: OPEN})).decode()
    parsed = openmetrics(page)  # type: ignore[no-untyped-call]  # theirs
    families = {family.name: family for family in parsed}
    exemplars = [s.exemplar for s in families["h"].samples if s.exemplar]
    assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": "abc"}] * 2
    assert page.count("# EOF") == 1


def test_a_label_goes_in_before_all_others() -> None:
    assert labelled("a 1", 2) == 'a{worker="2"} 1'
    assert labelled('a{b="c d"} 1', 2) == 'a{worker="2",b="c d"} 1'
    assert labelled('a 1 # {t="x"} 0.5', 2) == 'a{worker="2"} 1 # {t="x"} 0.5'
