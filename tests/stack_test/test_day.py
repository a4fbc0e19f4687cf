"""The README's working day as a script: read without a stack."""

import day


def test_each_command_of_the_readme_has_its_step():
    _, told, _ = day.section()
    commands = [command for command, _ in day.blocks(told)]
    assert len(commands) == len(day.STEPS)
    for command, step in zip(commands, day.STEPS):
        assert command.startswith(step.begins), command


def test_what_is_read_from_the_readme_is_what_would_be_written_there():
    _, told, _ = day.section()
    assert day.written(told, [said for _, said in day.blocks(told)]) == told


def test_a_command_may_have_several_lines_and_a_block_several_commands():
    told = '```console\n$ a \\\n    --b\nsaid\n$ c\n```\n'
    assert day.blocks(told) == [["a \\\n    --b", ["said"]], ["c", []]]
    assert day.written(told, [["other"], ["more"]]) == '```console\n$ a \\\n    --b\nother\n$ c\nmore\n```\n'


def test_times_names_and_sums_may_differ_and_counts_may_not():
    one = ["Redrive 2026-11-27-204017-34d19d has begun, in 3 s or more, at most 1.5000 USD.", " FAILED AT  2026-11-27T20:39:53Z  9"]
    two = ["Redrive 2026-11-28-000000-aaaaaa has begun, in 1 min 5 s or more, at most 0.1 USD.", " FAILED AT   2026-11-28T00:00:00Z 9"]
    assert day.masked(one) == day.masked(two)
    for a, b in [
        (" refused  9", " refused  8"), ("44 sent; nothing that matches is left.", "43 sent; nothing that matches is left."),
        ("950 results, 0 missing", "949 results, 1 missing"), ("exit code 0", "exit code 3"),
    ]:
        assert day.masked([a]) != day.masked([b]), a


def test_of_what_is_said_on_the_way_the_last_stays():
    said = ["Redrive r has begun.", "0 of 44 sent", "10 of 44 sent; canary: 3 of 10 succeeded, 0 failed", "44 sent; nothing that matches is left."]
    assert day.trimmed(said, 9, 9) == [said[0], *said[2:]]
    assert day.trimmed([*said, "more"], 1, 1) == [said[0], "…", "more"]


def test_a_line_that_is_written_over_is_shown_as_it_ends():
    assert day.shown("10 %\r20 %\r\n\x1b[1mREASON\x1b[0m  \r\n\r\n") == ["20 %", "REASON"]
