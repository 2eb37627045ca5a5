"""What words over, beside and behind numbers say of them: that they are scores, that they are none, and whose they are.

The words stand here alone: titles, labels of rows, heads of columns and remarks are all judged by them.
"""

import re

from .cells import letters_of


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_VOID_FOR_SURE = _set("void invalid invalidated retracted retraction withdrawn obsolete superseded leaked discarded donotuse")
_VOID = _VOID_FOR_SURE | _set(
    "leak leaks leaking leakage wrong incorrect erroneous buggy bug bugs broken placeholder placeholders dummy fake simulated toy smoke sanity example "
    "examples ignore deprecated outdated corrupt corrupted unreliable outliers"
)
_CRASHED = _set("oom failed fails fail failure failures crashed crash diverged died killed nan inf infinite timeout aborted skipped pending running unfinished")
_OTHERWISE = _set(  # measured, but no score
    "loss losses perplexity perplexities ppl error errors err errs mse mae rmse nll ce entropy entropies nats bit bits bpc improvement improvements improv gain "
    "gains gained delta deltas δ ± hour hours minute minutes second seconds time times timing timings runtime runtimes latency rank ranks ranking rankings std stdev "
    "stddev sd stderr sem deviation deviations spread variance variances iqr interquartile sigma σ uncertainty uncertainties ci confidence interval intervals "
    "pvalue pvalues correlation correlations corr cosine similarity similarities kendall spearman pearson ratio ratios gap gaps drop drops train progress "
    "untrained regret residuals residual sparsity ece calibration throughput energy cost costs speedup utilisation utilization difference differences diff diffs misses "
    "missed forgetting overfitting zscores zscore sharpness peak gb kwh flops regression openness skipped finished completed duration early halfwidth "
    "\u5dee\u503c \u6807\u51c6\u5dee \u65b9\u5dee \u63d0\u5347 \u635f\u5931"
)
_UNMEASURED = _set(
    "predicted prediction predictions expected expectation expectations target targets goal goals planned hope hopes hoped hypothesis hypotheses "
    "hypothetical guess guesses guessed estimated estimate estimates threshold thresholds need needs needed required extrapolated extrapolation forecast oracle ceiling ceilings chance majority random "
    "tobeat beat bound bounds minimum published copied paper \u9884\u6d4b \u9884\u671f \u76ee\u6807"
)
_SETTINGS = _set(  # said of systems too
    "weight weights rate rates learning lr lrs wd dropout dropouts noise noises noisy norm norms beta betas temperature temperatures decay discount "
    "probability probabilities proportion proportions fraction fractions share coverage mixture parameters params parameter config cfg configuration settings "
    "hyperparameters curriculum values"
)
_SCORES = _set(
    "score scores accuracy accuracies acc result results metric metrics evaluation evaluations eval evaluated measured measurement measurements benchmark mad ours "
    "our performance test final best run reaches reached achieves achieved actual corrected correction"
)
_FILLER = _set(
    "a an the of on in for by per at and with over all each six 6 task tasks this we it i is are was were here set suite table tab mean average avg higher better "
    "seeds seed epoch new experiment percent pct my model models system systems val validation held out heldout numbers values overall main first second third section top1"
)
_SYSTEMS = _set("variant variants system systems model models operator operators architecture architectures update updates sweep ablation ablations attempt attempts")
_AGGREGATES = _set(  # of rows or along an axis: no names of systems
    "mean average avg median min max count total sum best last all winner step steps epoch epochs seed seeds n len length range val relative change changes "
    "absolute abs vs versus upper lower random reference train test split hypothesis se % params parameters paramsm"
)
_NO_NAMES = _set("what unit units p runs n_runs num_runs")
_SMALL = _set("standard floor ablation baseline task tasks the of in a per h s m ms k x over to from and or no level levels 2 1 3 test")
_OWN = _set("accuracy acc accuracies score scores value values result results ours test measured metric metrics testaccuracy testacc testscore bestaccuracy")  # names nobody
_QUALIFIES = _set("status metric split phase stage measure quantity kind type subset valid")  # over a column that says what a row is

_PHRASES = [
    (re.compile(r"[\u0394\u03b4]?[ -]*\bdeltas?[ -]+(?:rule|net)\w*|[\u0394\u03b4][ -]?(?:rule|net)|\brank[ -]+(?:one|two|\d+)\b|\blow-rank\b"), " "),
    (re.compile(r"\berrors?[ -]+(?!(?:rates?|per|of|in|by|for|over|bars?)\b)\w+"), " "),  # systems bound it, or update before it
    (re.compile(r"(?:\u00b1|\+/-)\s*(?:std|sd|s\.?d\.?|sem|s\.?e\.?m?\.?|stderr|standard \w+|\d+ ?sigma)\b"), " "),  # how a score is written
    (re.compile(r"\b(?:no|without(?: the| a)?|fixed(?: the| a)?|corrected for(?: the| a)?|free of) (?:\w+ )?leak\w*|\bleak\w*(?: \w+)? (?:was |is |are |were )?(?:fixed|corrected)"), " "),
    (re.compile(r"\b(?:lr|learning[ _-]rate|dropout|weight[ _-]decay|decay|noise|beta|temperature)s?\s*(?:=|:|of)?\s*\d[\w.-]*"), " "),  # given, not told of
    (re.compile(r"\bp[- ]values?\b"), " pvalue "),
    (re.compile(r"\bhalf[- ]?widths?\b"), " halfwidth "),
    (re.compile(r"\bz[- ]scores?\b"), " zscore "),
    (re.compile(r"\b1 *- *acc\w*"), " error "),
    (re.compile(r"\bdo(?: no|n')t use\b|\bnot (?:reproducible|valid)\b"), " donotuse "),
    (re.compile(r"\bto beat\b"), " tobeat "),
    (re.compile(r"\bspeed-?ups?\b"), " speedup "),
    (re.compile(r"\b(?:epoch|step) 1\b|\b(?:1|one|first) (?:epoch|step)\b"), " early "),
    (re.compile(r"\b(?:s\.e\.m\.?|s\.d\.?|s\.e\.)(?!\w)"), " sd "),
    (re.compile(r"\btraining (?:acc\w*|set|scores?|results?|progress)\b"), " train "),
]  # fmt: skip
_WORD = re.compile(r"[^\W_]+|[\u0394\u03b4\u00b1\u03c3%]")
_CHANGED = re.compile(r"\bchanges?\b.*\b(?:vs|versus|against|over|relative|from|to|when|compared|absolute)\b|\brelative changes?\b|\bminus\b|^\W*(?:\w+ )?relative to\b", re.IGNORECASE)
_DIFFERENCES = _set("change changes versus vs compared against")
_RAISED = re.compile(r"\s*(?:[\w.]+(?:Error|Exception|Warning):|Traceback)")
_PERCENT = re.compile(r"(?<![\d.])(?<!\d )(?:%|\b(?:per ?cent|pct)\b)(?! of (?!correct|right|all))|\bx ?100\b|\b0 ?(?:-|\u2013|to) ?100\b", re.IGNORECASE)
_NO_PERCENT = re.compile(r"\b(?:not|no|than|instead of|never)(?: \w+){0,2} (?:%|per ?cent|pct)|(?<!not )(?<!not as )\bfractions?\b", re.IGNORECASE)
_BASELINE = re.compile(r"\b(?:baselines?|reference)\b", re.IGNORECASE)
_LABEL = re.compile(r"^[\s#*\[-]*(?:model|name|variant|system|method|operator|architecture|candidate)[ \t*]*[:=]\s*(.*)", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(?=[\w.+-]*(?:_|[a-z][A-Z]))[A-Za-z][\w.+-]*")
_COUNTED = re.compile(r"\b\d+ (?=seeds?\b|tasks?\b|runs?\b)|^\s*(?:(?:table|tab\.?|section) ?)?\d+(?:\.\d+)*[.:)]? ", re.IGNORECASE)
_MARKS = " \t#*_:=-`'\"[]{}("
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_WITH_A_NUMBER = re.compile(r"[^\W\d][\w./-]*\s*[:=<>]?\s*[-+]?\d[\d.,]*%?")
_SPENT = re.compile(r"\b[\d.:]+ ?(?:h|hours?|m|min(?:ute)?s?|s|sec(?:ond)?s?)\b|\b\w+\.py\b|--\w+(?: \S+)?", re.IGNORECASE)
_TELLS_MORE = re.compile(r"[(,;:\u2013]|\b(?:of|on|in|for|over|per|with|without|when|before|after|chosen|and|to|by|at|vs|against|from|between|among)\b")
_GIVES_A_VALUE = re.compile(r"\w[ :=]+\d+[.:]\d[\d.:]*\W*$")
_PROCESS = _set("finished completed running skipped")
_OF_A_SUBJECT = _PROCESS | _set("level levels table matrix values numbers chosen used all tasks task s h")
_CORRECTED = re.compile(r"\bcorrect(?:ed|ion)\b|\bfixed\b", re.IGNORECASE)
_COMPARED = re.compile(r"(?:vs\b|versus\b|\u0394|[\u0394\u03b4]|(?:delta|diff(?:erence)?|gain|improv\w*|change)s?\W+(?:vs|versus|over|to|from|against|of)\b)", re.IGNORECASE)
_OF_ALL = re.compile(r"\W*(?:(?:all|the|these|those) )*(?:values|numbers|figures|entries|scores|results|these|those|they) (?:are|show|give)(?: (?:the|test|mean|all))* ([^,;(.]+)", re.IGNORECASE)
_LESS_IS_BETTER = re.compile(r"\b(?:lower|smaller|less) is better\b", re.IGNORECASE)
_FIGURE_OF = re.compile(r"\W*(?:std\w*|sd|sem|stderr|standard \w+|errors?|loss(?:es)?|variance|spread|noise|uncertainty|ci) (?:of|for|in|over)\b", re.IGNORECASE)
_BETWEEN = re.compile(r"\S+(?: \(\w+\))? (?:-|\u2212|\u2013|minus|vs\.?|versus) \S+", re.IGNORECASE)
_LAST = _set("train loss losses err std stdev sd stderr sem variance ppl perplexity pvalue nll ranks hours")  # behind a name
_LONG = 9


def words_of(text: str) -> list[str]:
    """Its words in small letters, those of an identifier one by one; what systems are called by, and how scores are written, left out."""
    text = text.lower()
    for phrase, instead in _PHRASES:
        text = phrase.sub(instead, text)
    return _WORD.findall(text)


def holds_no_scores(title: str, *, first: bool) -> bool:
    """Whether words say that what follows is void, measured otherwise or not at all, or differences where scores came `first`."""
    if _RAISED.match(title):
        return False
    words = set(words_of(_IDENTIFIER.sub(lambda name: name[0] if _all_of_figures(name[0]) else " ", title)))
    if _is_long(title):
        opens = title.rstrip().endswith(":") and set(words_of(title)[:1]) & (_OTHERWISE | _UNMEASURED)
        return denies(title) or (bool(opens or words & _VOID_FOR_SURE) and not _CORRECTED.search(title))
    told = words & (_VOID | _CRASHED | _OTHERWISE | _UNMEASURED)
    settings = words & _SETTINGS and not words & (_SCORES | _SYSTEMS)
    return bool(told or settings or _CHANGED.search(title) or (not first and words & _DIFFERENCES))


def is_of_others(title: str, *, first: bool) -> bool:
    """The same of a table of systems by tasks, which is taken for scores but where what its title is of is something else.

    That is the last word before anything that tells more of it; a log's line over a table speaks of runs and hours, too.
    """
    if _is_long(title) or _RAISED.match(title):
        return holds_no_scores(title, first=first)
    plain = _SPENT.sub(" ", _COUNTED.sub("", title.strip(_MARKS)))
    words = words_of(plain)
    subject = words_of(_TELLS_MORE.split(plain.lower(), maxsplit=1)[0]) or words
    while len(subject) > 1 and (subject[-1] in _OF_A_SUBJECT or subject[-1].isdigit()):
        subject.pop()
    of, last = set(subject), subject[-1] if subject else ""
    kinds = (_OTHERWISE | _UNMEASURED | _SETTINGS) - _PROCESS
    told = not _GIVES_A_VALUE.search(title) and (last in kinds or (of & _UNMEASURED and last in _SCORES))
    changed = _CHANGED.search(title) or (not first and set(words) & _DIFFERENCES)
    return bool(told or changed or set(words) & (_VOID | {"train", "untrained"}))


def denies(line: str) -> bool:
    """Whether a sentence, above a table or below it, says of all its numbers that they are no scores."""
    if _is_long(line.rstrip(". ")) or re.search(r"\bhigher\b", line, re.IGNORECASE):
        return False
    said = _OF_ALL.match(line)
    return bool(_LESS_IS_BETTER.search(line) or (said and set(words_of(said[1])) & (_OTHERWISE | _VOID) and _all_of_figures(said[1])))


def of_scores(title: str) -> bool:
    """Whether every word of it is known to speak of scores."""
    words = words_of(_COUNTED.sub("", title.strip(_MARKS)))
    return bool(set(words) & _SCORES) and set(words) <= _SCORES | _FILLER | {"%"}


def owner(title: str) -> str | None:
    """Whose the scores under a title are, the record's where it is ''; None where that, or that they are scores, can't be told."""
    title = _TAG.sub(" ", title)
    if not title.strip(_MARKS) or title.strip(_MARKS + "}),;") == "":
        return ""
    if label := _LABEL.match(title):
        return label[1].strip(_MARKS)
    if _is_long(title) or holds_no_scores(title, first=True):
        return None
    if baseline := of_baseline(title):
        return baseline
    if "=" in title and title.rstrip().endswith(("{", "(", "[")):  # assigned
        return "" if of_scores(title) else None
    names = _IDENTIFIER.findall(title)
    rest = _IDENTIFIER.sub(" ", title)
    if not names or of_scores(title):
        return "" if of_scores(title) else None
    sound = len(names) == 1 and not is_figure(names[0]) and (not words_of(rest) or set(words_of(_COUNTED.sub("", rest))) <= _SCORES | _FILLER)
    return names[0] if sound else None


def one_word(title: str) -> str | None:
    """The only word of a title, which may be a system beside others under one word each; None where it speaks of something else."""
    word = title.strip(_MARKS)
    known = _SCORES | _FILLER | _AGGREGATES | _CRASHED
    return word if re.fullmatch(r"[\w.+-]+", word) and not (set(words_of(word)) & known or holds_no_scores(word, first=True)) else None


def is_own(head: str) -> bool:
    """Whether a word over or before scores names no system but what is measured."""
    return letters_of(head) in _OWN


def is_figure(name: str) -> bool:
    """Whether a row or a column is worked out of others, stands along an axis, or is no score at all."""
    bare = re.sub(r"[(\[][^()\[\]]*[)\]]\s*$", "", name).strip() or name
    aside = name[len(bare) :]
    of_settings = "_" in bare and set(words_of(bare)) <= _SETTINGS  # as `norm_decay`
    if (_all_of_figures(bare) and not of_settings) or (aside and (_all_of_figures(aside) or set(words_of(aside)) & _VOID)):
        return True
    words = words_of(bare)
    apart = re.search(r"[ .:/]", bare.strip("[]"))
    behind = apart and words[-1:] and words[-1] in _LAST and not {"no", "without", "with", "on"} & set(words)
    return bool(behind or bare.lower() in _NO_NAMES or _FIGURE_OF.match(bare) or _COMPARED.match(bare) or _BETWEEN.fullmatch(bare) or re.match(r"\d+ ?%$|\W*\u00b1|.*[@,;:] *(?:epoch|step)\b", bare))


def _all_of_figures(text: str) -> bool:
    words = {word for word in words_of(text) if not word.isdigit()}
    kinds = _VOID | _CRASHED | _OTHERWISE | _UNMEASURED | _SETTINGS | _AGGREGATES
    return bool(words & kinds) and words <= kinds | _SMALL


def takes_back(remark: str) -> bool:
    """Whether words behind a score say that it is none, or another's; those with a number of their own, as in `loss 0.9`, speak of that."""
    if re.search(r"\bcorrect(?:ed|ion)\W+\d", remark, re.IGNORECASE):
        return True
    alone = _WITH_A_NUMBER.sub(lambda found: found[0] if set(words_of(found[0])) & (_VOID | _CRASHED) else " ", remark)
    words = set(words_of(alone))
    other = {"baseline", "reference", "training"} | _SETTINGS | _VOID | _CRASHED | _OTHERWISE | _UNMEASURED
    return bool(words & other) or re.fullmatch(r"\W*[A-Za-z]\w*_\w*\W*", alone) is not None


def disqualifies(head: str, cell: str) -> bool:
    """Whether a cell beside the scores of a row says that they are none."""
    words = set(words_of(cell))
    if set(words_of(head)) & _QUALIFIES:
        return bool(words & (_VOID | _CRASHED | _OTHERWISE | _UNMEASURED))
    return bool(words & _VOID) or (len(words) == 1 and bool(words & _CRASHED))


def is_corrected(text: str) -> bool:
    """Whether words mark what is meant to replace another value."""
    return _CORRECTED.search(text) is not None


def in_percent(title: str) -> bool:
    """Whether words over a column or a table say that it is of percentages: a sign behind a number does not."""
    return len(title.split()) < _LONG and _PERCENT.search(title) is not None and _NO_PERCENT.search(title) is None


def all_in_percent(line: str) -> bool:
    """Whether a line says of a whole table, and nothing else, that its numbers are percentages."""
    words = set(words_of(line))
    return bool(words & _set("percent pct percentages %")) and words <= _set("all the values numbers scores accuracies are in given as percent pct percentages % test accuracy")


def of_baseline(title: str) -> str | None:
    """The name in a title that speaks of a baseline, `baseline` where it gives no single one; None for any other title."""
    if len(title.split()) >= _LONG or not _BASELINE.search(title):
        return None
    names = [word for word in re.findall(r"[\w.+-]+", _BASELINE.sub("", title)) if "_" in word or any(map(str.isdigit, word))]
    return names[0] if len(names) == 1 else "baseline"


def _is_long(title: str) -> bool:
    return len(title.strip(_MARKS).split()) >= _LONG or title.rstrip().endswith(".")
