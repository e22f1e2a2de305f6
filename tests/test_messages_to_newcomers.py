"""What a newcomer reads when a program is no mixing graph: each text in full, to be read here.

A text says what was expected, what came and the likeliest fix, with a line of code where one helps.
White space is folded.
"""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from mlass_ppl import (
    BP,
    EngineError,
    Feature,
    GraphError,
    MlassError,
    Soft,
    Table,
    TableError,
    bind,
    compile_program,
    mix,
    posterior,
    source,
)

HALF = torch.full((2, 2, 2), 0.5)
COINS = {"a": [0.5, 0.5], "b": [0.5, 0.5]}
KEPT = []


def duo():
    return mix("m", source("a"), source("b"))


def continuous_latent():
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    return mix("m", source("a"), level)


def categorical_latent():
    return mix("m", pyro.sample("a", dist.Categorical(torch.ones(3))))


def observed_by_obs():
    source("a")
    return pyro.sample("m", dist.Categorical(torch.ones(3)), obs=torch.tensor(1))


def factor_statement():
    a = source("a")
    pyro.factor("weights", torch.tensor(0.0))
    return mix("m", a)


def deterministic_statement():
    a = source("a")
    pyro.deterministic("level", torch.tensor(0.0))
    return mix("m", a)


def parameter():
    loud = pyro.param("loud", torch.tensor(0.5))
    return mix("m", source("a"), source("b"), weights=(loud, 1 - loud))


def plate():
    with pyro.plate("voices", 3):
        return mix("m", source("a"))


def branch():
    a, b = source("a"), source("b")
    if a:
        return mix("m", a, b)
    return mix("m", b)


def comparison():
    a, b = source("a"), source("b")
    return mix("m", a, b) if a == 3 else mix("m", b)


def loop():
    return mix("m", *(part for part in source("a")))


def arithmetic():
    return mix("m", 0.7 * source("a") + 0.3 * source("b"))


def number():
    a = source("a")
    return mix("m", *(source(f"b_{i}") for i in range(a)))


def table_look_up():
    a, b = source("a"), source("b")
    return HALF[a, b]


def torch_function():
    return mix("m", torch.where(source("a"), 0, 1))


def method():
    return mix("m", source("a").long())


def too_early():
    song = mix("m", source("a"), bass)  # noqa: F821
    bass = source("bass")
    return song, bass


def misspelt():
    return mix("m", source("a"), bas)  # noqa: F821


def named_by_strings():
    source("drums")
    return mix("m", "drums", "bass")


def named_twice():
    return mix("m", *(source("a") for _ in range(3)))


def dangling():
    a, b, c = source("a"), source("b"), source("c")
    mix("bc", b, c)
    return mix("m", a)


def dangling_source():
    a, _ = source("a"), source("b")
    return mix("m", a)


def nothing_returned():
    mix("m", source("a"), source("b"))


def source_returned():
    a = source("a")
    mix("m", a, source("b"))
    return a


def dict_returned():
    return {"m": mix("m", source("a"), source("b"))}


def number_returned():
    mix("m", source("a"), source("b"))
    return 3


def name_returned():
    mix("m", source("a"), source("b"))
    return "m"


def generator():
    yield mix("m", source("a"), source("b"))


def weights_short():
    return mix("m", source("a"), source("b"), source("c"), weights=(0.5, 0.5))


def weights_sum():
    return mix("m", source("a"), source("b"), weights=(0.5, 0.6))


def weights_negative():
    return mix("m", source("a"), source("b"), weights=(1.5, -0.5))


def weights_in_place():
    return mix("m", source("a"), source("b"), 0.7, 0.3)


def weights_in_words():
    return mix("m", source("a"), source("b"), weights="loud")


def no_parents():
    source("a")
    return mix("m")


def one_part_twice():
    a = source("a")
    return mix("m", a, a)


def parts_in_a_list():
    return mix("m", [source("a"), source("b")])


def part_is_a_function():
    return mix("song", duo, source("c"))


def part_is_none():
    def rest():
        mix("rest", source("b"), source("c"))

    return mix("m", source("a"), rest())


def name_forgotten():
    return mix(source("a"), source("b"))


def evidence_unobserved():
    rhythm = mix("rhythm", source("a"), source("b"), evidence=Soft())
    return mix("song", rhythm, source("c"))


def evidence_value():
    return mix("m", source("a"), source("b"), evidence=3)


def evidence_class():
    return mix("m", source("a"), source("b"), evidence=Soft)


def feature_as_parent():
    rhythm = mix("rhythm", source("a"), source("b"), evidence=Feature())
    return rhythm, mix("song", rhythm, source("c"))


def symmetric_unequal():
    return mix("m", source("a"), source("b"), weights=(0.7, 0.3), symmetric=True)


def symmetric_unlike():
    return mix("m", source("a", prior="beat"), source("b", prior="tone"), symmetric=True)


def label_negative():
    return mix("m", source("a", label=-1), source("b"))


def label_on_a_mixture():
    return mix("m", source("a"), source("b"), label=3)


def option_misspelt():
    return mix("m", source("a"), source("b"), wieghts=(0.7, 0.3))


def obs_on_a_mixture():
    return mix("m", source("a"), source("b"), obs=3)


def alphabet_zero():
    return mix("m", source("a", alphabet=0), source("b"))


def recursion():
    return mix("m", recursion(), source("a"))


def with_argument(n):
    return mix("m", *(source(f"a_{i}") for i in range(n)))


class Trio:
    def __init__(self, n=3):
        self.n = n


def keeps_a_site():
    KEPT.append(source("a"))
    return mix("m", KEPT[0], source("b"))


PROGRAMS = {
    continuous_latent: """site 'level' of 'continuous_latent' samples Normal, a continuous variable;
        every site of a mixing program is a token, declared by source('level') or mix('level', ...).
        Only what is observed may be continuous: return mix('m', a, b, evidence=Feature()).""",
    categorical_latent: """site 'a' of 'categorical_latent' samples Categorical; every site of a
        mixing program is declared by source('a') or mix('a', ...) and gets its probabilities when
        the program is used. To read a whole Pyro model of discrete sites, use from_pyro(model).""",
    observed_by_obs: """site 'm' of 'observed_by_obs' samples Categorical with obs=; a mixing
        program only declares. Return the observed site, return mix('m', ...), and give its value
        when the program is used, as evidence={'m': ...}.""",
    factor_statement: """'factor_statement' calls pyro.factor('weights'); a mixing program only
        declares. Weights over the tokens of an observed site are its evidence: mix('m', a, b,
        evidence=Soft()).""",
    deterministic_statement: """'deterministic_statement' calls pyro.deterministic('level'); a
        mixing program has only source and mix sites, whose values are not known while it is
        declared. Drop the statement.""",
    parameter: """'parameter' calls pyro.param('loud'); a mixing program has no parameters. Its
        tables and priors are given when it is used, as in bind(program, tables, log_priors).""",
    plate: """'plate' uses plate 'voices'; a mixing program declares each site on its own, with a
        Python loop where there are many: [source(f'a_{i}') for i in range(3)].""",
    branch: """the value of site 'a' is not known while the graph is being declared, so no `if`,
        `while`, `and`, `or` or `not` can depend on it. A program may pass a site to mix(...) and
        return it, but not compute with it. To branch, write one program for each case.""",
    comparison: """the value of site 'a' is not known while the graph is being declared, so it
        cannot be compared. A program may pass a site to mix(...) and return it, but not compute
        with it. To branch, write one program for each case.""",
    loop: """site 'a' is a single token, not known while the graph is being declared: it has no
        parts to loop over. For several sites, declare each under a name of its own:
        [source(f'a_{i}') for i in range(3)].""",
    arithmetic: """site 'a' cannot be computed with (*): how sites add up is declared by mix(...).
        For 0.7 a + 0.3 b write mix('m', a, b, weights=(0.7, 0.3)).""",
    number: """the value of site 'a' is not known while the graph is being declared, so it is no
        number for int(), float(), range() or an index. Loops and indices take plain Python numbers,
        as in: for i in range(3). mix('m', a, ...) declares a table p(m | a, ...); its numbers are
        given when the program is used, as tables={'m': ...}.""",
    table_look_up: """the value of site 'a' is not known while the graph is being declared, so torch
        and NumPy cannot take it, nor can it index a table. mix('m', a, ...) declares a table
        p(m | a, ...); its numbers are given when the program is used, as tables={'m': ...}.""",
    torch_function: """the value of site 'a' is not known while the graph is being declared, so
        torch and NumPy cannot take it, nor can it index a table. mix('m', a, ...) declares a table
        p(m | a, ...); its numbers are given when the program is used, as tables={'m': ...}.""",
    method: """the value of site 'a' is not known while the graph is being declared, so it has no
        'long'. A program may pass a site to mix(...) and return it, but not compute with it.""",
    too_early: """program 'too_early' uses the name 'bass' before it has a value. A site is declared
        above the line that takes it, bass = source('bass'), and helpers are imported: from
        mlass_ppl import mix, source.""",
    misspelt: """program 'misspelt' uses the name 'bas' before it has a value. A site is declared
        above the line that takes it, bas = source('bas'), and helpers are imported: from mlass_ppl
        import mix, source.""",
    named_by_strings: """mixture 'm' takes the string 'drums'; expected the site itself, as
        source('drums') returned it: drums = source('drums'), then mix('m', drums, ...).""",
    named_twice: """'named_twice' declares site 'a' twice. Every site needs a name of its own, in a
        loop for instance f'a_{i}'.""",
    dangling: """'dangling' declares 'b', 'c' and 'bc', which the observed 'm' does not depend on:
        nothing could be learned about them. Mix them in, as in mix('m', ..., bc), return a mixture
        of them as well, or drop them.""",
    dangling_source: """'dangling_source' declares 'b', which the observed 'm' does not depend on:
        nothing could be learned about it. Mix it in, as in mix('m', ..., b), return a mixture of it
        as well, or drop it.""",
    nothing_returned: """program 'nothing_returned' returned None; expected the observed mixture
        site (or a tuple of them), as in: return mix('mixture', a, b). Is its `return` missing?""",
    source_returned: """'source_returned' returns the source 'a', but sources are what is looked
        for. What is observed is a mixture: return mix('mixture', a, ...).""",
    dict_returned: """program 'dict_returned' returned a dict; expected the observed mixture site
        (or a tuple of them), as in: return left, right. Sites keep the names that they were
        declared under.""",
    number_returned: """program 'number_returned' returned 3; expected the observed mixture site (or
        a tuple of them), as in: return mix('mixture', a, b).""",
    name_returned: """program 'name_returned' returned the string 'm'; expected the observed mixture
        site (or a tuple of them), as in: return mix('mixture', a, b). That is the value that
        mix(...) gave, not its name.""",
    generator: """program 'generator' is a generator (it uses yield); expected the observed mixture
        site (or a tuple of them), as in: return mix('mixture', a, b).""",
    weights_short: """mixture 'm' of 'weights_short' has 3 parts (a, b, c) and 2 weights. Give one
        for each, parents first and then hidden: weights=(1/3, 1/3, 1/3); or none, for the mean of
        all sources.""",
    weights_sum: """weights of mixture 'm' must be positive and sum to 1, got (0.5, 0.6) (sum 1.1).
        Divide them by their sum: x = (0.5, 0.6); weights=[w / sum(x) for w in x].""",
    weights_negative: """weights of mixture 'm' must be positive and sum to 1, got (1.5, -0.5) (sum
        1). Parts are added, never subtracted; leave out a part of weight 0.""",
    weights_in_place: """mixture 'm' takes 0.7; expected sites that source(...) or mix(...)
        returned. Weights are a keyword: mix('m', a, b, weights=(0.7, 0.3)).""",
    weights_in_words: """weights of mixture 'm' must be numbers, one for each part, as
        weights=(0.7, 0.3); got 'loud'.""",
    no_parents: """mixture 'm' of 'no_parents' has no parents. Name what it mixes: mix('m', a,
        b).""",
    one_part_twice: """mixture 'm' of 'one_part_twice' takes a part twice: ['a', 'a']. Name each
        once; weights=(...) say how loud each is.""",
    parts_in_a_list: """mixture 'm' takes [site 'a', site 'b']; expected sites that source(...) or
        mix(...) returned, each on its own. Unpack them: mix('m', *sites).""",
    part_is_a_function: """mixture 'song' takes the function 'duo'; expected the site that it
        returns. Call it: mix('song', duo(), ...).""",
    part_is_none: """mixture 'm' takes None; expected sites that source(...) or mix(...) returned.
        Is a `return` missing in a function that makes a part?""",
    name_forgotten: """a site needs a name, a non-empty string, as in source('a') and mix('m', a,
        b); got site 'a'.""",
    evidence_unobserved: """mixture 'rhythm' of 'evidence_unobserved' declares
        evidence=Soft(temperature=1.0), but is not observed: the program returns 'song'. Return it
        as well, or drop its evidence=.""",
    evidence_value: """evidence of mixture 'm' is the kind of what is observed, Token(), Soft() or
        Feature(), got 3. The value itself is given when the program is used, as evidence={'m':
        ...}.""",
    evidence_class: """evidence of mixture 'm' is the class Soft, not one of its kind: write
        evidence=Soft().""",
    feature_as_parent: """mixture 'song' of 'feature_as_parent' takes 'rhythm' as a parent, but of
        'rhythm' a continuous feature is observed: it has no token that a table could be conditioned
        on. Observe its token, evidence=Token(), or mix its parts: mix('song', a, b, ...).""",
    symmetric_unequal: """mixture 'm' of 'symmetric_unequal' declares symmetric=True, but its
        parents weigh (0.7, 0.3): only parents of equal weight are exchangeable. Drop symmetric=, or
        give them one weight.""",
    symmetric_unlike: """mixture 'm' of 'symmetric_unlike' declares symmetric=True, but its parents
        'a' and 'b' differ in prior (['beat'] and ['tone']), so they are not exchangeable. Drop
        symmetric=.""",
    label_negative: """label of source 'a' must be a class number (0, 1, 2, ...), got -1. Without a
        class, leave label= out.""",
    label_on_a_mixture: """in 'label_on_a_mixture', mix(...) has no option label=; label= belongs to
        source(...). It has weights=, hidden=, alphabet=, evidence=, codec=, symmetric=.""",
    option_misspelt: """in 'option_misspelt', mix(...) has no option wieghts=; did you mean
        weights=? It has weights=, hidden=, alphabet=, evidence=, codec=, symmetric=.""",
    obs_on_a_mixture: """in 'obs_on_a_mixture', mix(...) has no option obs=; what is observed is the
        mixture that the program returns, and its value is given when the program is used, as
        evidence={'m': ...}.""",
    alphabet_zero: """alphabet of 'a' must be a positive integer, its number of tokens; got 0.""",
    recursion: """program 'recursion' calls itself without end. A helper that mixes recursively
        needs a case that stops, as: if n == 1: return source('a_1').""",
    with_argument: """program 'with_argument' is missing a required argument: 'n'; a mixing program
        takes none. Wrap it, as in lambda: with_argument(...), or call it where it returns a
        program, as in chain(3).""",
    Trio: """expected a program, a function of source and mix sites, got the class 'Trio'. Pass a
        function; an object of the class, Trio(), will do where it has a __call__ that declares the
        sites.""",
    "duo": """expected a program, a function of source and mix sites, got str. Pass the function
        itself, compile_program(trio), neither its name nor what it returns.""",
}


def folded(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: getattr(p, "__name__", p))
def test_a_program_that_is_no_mixing_graph(program) -> None:
    with pytest.raises(GraphError) as caught:
        compile_program(program)
    assert str(caught.value) == folded(PROGRAMS[program])


def posterior_of(tables, priors=COINS, evidence={"m": 0}):  # noqa: B006
    return posterior(duo, tables, priors, evidence)


def two_rooms():
    a, b = source("a"), source("b")
    return mix("far", mix("near", a, b), a)


USES = {
    "a site of an earlier run": (
        lambda: [compile_program(keeps_a_site), compile_program(keeps_a_site)],
        GraphError,
        """mixture 'm' takes 'a', a site of another program or of an earlier run of this one.
        Declare its parts inside the program, each time that it runs: a = source('a').""",
    ),
    "the program is called": (
        lambda: compile_program(duo()),
        GraphError,
        """site 'a' has no distribution yet: a mixing program only declares, so it is not called but
        passed on. Compile it with compile_program(program), or run it with tables and priors:
        bind(program, tables, log_priors)().""",
    ),
    "a conditioned program": (
        lambda: compile_program(pyro.condition(duo, {"m": torch.tensor(1)})),
        GraphError,
        """site 'm' of 'duo' is conditioned (pyro.condition), which compiling would lose. Leave the
        program as it is and give what is observed as evidence, as in bind(program, tables,
        log_priors, evidence), or condition the bound one: pyro.condition(bind(program, tables,
        log_priors), data).""",
    ),
    "an intervention": (
        lambda: compile_program(poutine.do(duo, {"a": torch.tensor(1)})),
        GraphError,
        """site 'a' of 'duo' is intervened on (pyro.poutine.do), which compiling would lose. Leave
        the program as it is and intervene on the bound one: pyro.poutine.do(bind(program, tables,
        log_priors), data).""",
    ),
    "a scaled program": (
        lambda: compile_program(poutine.scale(duo, scale=0.5)),
        GraphError,
        """site 'a' of 'duo' is scaled or masked by a Pyro handler, which compiling would lose. How
        much an observed site counts is declared: mix('m', a, b, evidence=Token(power=0.5)).""",
    ),
    "a cycle": (
        lambda: BP().plan(compile_program(two_rooms), {}),
        EngineError,
        """BP() needs a tree; 'two_rooms' has the cycle near - a - near. Use LoopyBP() or Exact(),
        or drop one of the mixtures on the cycle.""",
    ),
    "a table of the wrong arity": (
        lambda: posterior_of({"m": HALF[0]}),
        TableError,
        """the table of 'm' has 2 axes (2, 2); expected 3: a, b, and last m.""",
    ),
    "a table of the wrong alphabet": (
        lambda: posterior(
            lambda: mix("m", source("a", alphabet=3), source("b")), {"m": HALF}, COINS, {"m": 0}
        ),
        TableError,
        """site 'a' has 3 tokens elsewhere, but the table of 'm' was counted for (2, 2, 2)
        (a, b, m).""",
    ),
    "a table that is missing": (
        lambda: posterior_of({"mixture": HALF}),
        TableError,
        """'duo' needs a table for 'm', p(m | a, b); given are ['mixture'].""",
    ),
    "counts for probabilities": (
        lambda: posterior_of({"m": 4 * HALF}),
        TableError,
        """each row p(. | parents) must sum to 1 over the last axis (or to 0 where the parents are
        impossible); sums lie in [4, 4]. For counts use Table.from_counts(Counts.from_dense(array)).
        """,
    ),
    "evidence on a latent mixture": (
        lambda: bind(
            lambda: mix("song", mix("rhythm", source("a"), source("b")), source("c")),
            {name: Table.from_array(HALF) for name in ("rhythm", "song")},
            dict.fromkeys("abc", torch.zeros(2)),
            {"rhythm": 1},
        ),
        GraphError,
        """'<lambda>' does not observe 'rhythm'; it observes ['song']. What is observed is what the
        program returns: return it as well.""",
    ),
    "evidence on a source": (
        lambda: bind(duo, {"m": Table.from_array(HALF)}, dict.fromkeys("ab", torch.zeros(2)),
                     {"a": 1}),
        GraphError,
        """'duo' does not observe 'a'; it observes ['m']. Sources are what is looked for; what
        is known of one is given as its prior.""",
    ),
    "evidence on a name that is not there": (
        lambda: bind(duo, {"m": Table.from_array(HALF)}, dict.fromkeys("ab", torch.zeros(2)),
                     {"mixture": 1}),
        GraphError,
        """'duo' has no site 'mixture'; it has ['a', 'b', 'm'].""",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("use", "error", "text"), USES.values(), ids=USES.keys())
def test_a_program_used_wrongly(use, error, text) -> None:
    KEPT.clear()
    with pytest.raises(MlassError) as caught:
        use()
    assert type(caught.value) is error
    assert str(caught.value) == folded(text)


def test_the_fixes_that_the_texts_give_are_right() -> None:
    """What a newcomer copies out of a message has to work."""
    x = (0.5, 0.6)
    fixed = [
        lambda: mix("m", *(source(f"a_{i}") for i in range(3)), weights=(1 / 3, 1 / 3, 1 / 3)),
        lambda: mix("m", source("a"), source("b"), weights=[w / sum(x) for w in x]),
        lambda: mix("m", source("a", label=3), source("b")),
        lambda: mix("m", source("a"), source("b"), evidence=Soft()),
        lambda: with_argument(3),
        partial(with_argument, 3),
    ]
    for program in fixed:
        assert compile_program(program).observed == ("m",)
    model = pyro.condition(
        bind(duo, {"m": Table.from_array(HALF)}, dict.fromkeys("ab", torch.zeros(2))),
        {"m": torch.tensor(1)},
    )
    assert int(model()) == 1


def test_the_cause_is_kept_for_those_who_want_to_see_it() -> None:
    for program, cause in ((too_early, NameError), (recursion, RecursionError)):
        with pytest.raises(GraphError) as caught:
            compile_program(program)
        assert isinstance(caught.value.__cause__, cause)
