"""What a run's gates say, for tests of methods."""

import operator


def idle(trainer):
    """The gates of a run that are not as wanted."""
    compare = {">=": operator.ge, "<=": operator.le}
    assert trainer.gates().keys() == trainer.wanted_gates.keys()
    wanted = {name: words.split() for name, words in trainer.wanted_gates.items()}
    return [name for name, (sign, bound) in wanted.items() if not compare[sign](trainer.gates()[name], float(bound))]
