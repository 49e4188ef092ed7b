// From a run's rows (lines of metrics.jsonl) to what the charts show. Pure.

/** What a learner's time goes to, in the order of a step. */
export const SPENT = {
  sampling: "waiting for rollouts",
  outside: "waiting for verdicts",
  updating: "updating",
  guarding: "drift guards",
  syncing: "weights to the engine",
  other: "checkpoints and the rest",
};
export const ORIGINS = ["original", "rewrite", "rollout"];
const DROPS = ["tied", "unjudged", "dead", "unfit", "stale"];
/** A share of waiting below which the learner is not held up. */
const IDLE = 0.1;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => (values.length ? sum(values) / values.length : null);
const numbers = (values) => values.filter((value) => typeof value === "number");

/** Rows in the order of their steps. A row of a step that was taken again replaces it and what came after. */
export function append(rows, news) {
  for (const row of news) {
    while (rows.length && rows.at(-1).step >= row.step) rows.pop();
    rows.push(row);
  }
}

/** At most `count` groups of neighbouring rows, each `{x, rows, seconds}`: x is the last step, seconds how long. */
export function grouped(rows, count = 120) {
  const size = Math.max(1, Math.ceil(rows.length / count));
  const groups = [];
  for (let start = 0; start < rows.length; start += size) {
    const part = rows.slice(start, start + size);
    const before = start ? rows[start - 1].elapsed_s : part[0].step === 1 ? 0 : null;
    groups.push({ x: part.at(-1).step, rows: part, seconds: before === null ? null : part.at(-1).elapsed_s - before });
  }
  return groups;
}

/** The mean over each group of what `read` takes from a row; what is no number is left out. */
export function means(groups, read) {
  return groups.map(({ x, rows }) => [x, mean(numbers(rows.map(read)))]);
}

/** Sums of `read` over a group, by second. */
export function perSecond(groups, read) {
  return groups.map(({ x, rows, seconds }) => [x, seconds ? sum(numbers(rows.map(read))) / seconds : null]);
}

/** Axis names, in the order in which they first come. */
export function axesOf(rows) {
  return [...new Set(rows.flatMap((row) => Object.keys(row.scores ?? {})))];
}

/** How often each origin was chosen, as shares of a group's trained cohorts. */
export function originShares(groups) {
  return ORIGINS.map((origin) => ({
    name: origin,
    points: groups.map(({ x, rows }) => {
      const total = sum(rows.flatMap((row) => Object.values(row.chosen ?? {})));
      return [x, total ? sum(rows.map((row) => row.chosen?.[origin] ?? 0)) / total : null];
    }),
  }));
}

/** Verdicts of one status as a share of all. */
export function verdictShare(groups, status) {
  return groups.map(({ x, rows }) => {
    const total = sum(rows.map((row) => row.judge?.verdicts ?? 0));
    return [x, total ? sum(rows.map((row) => row.judge[status] ?? 0)) / total : null];
  });
}

/** Cohorts that ended with a row: trained on or dropped. */
function ended(row) {
  return row.cohorts + sum(DROPS.map((drop) => row.events?.[drop] ?? 0));
}

/**
 * Where the time of `rows` went: `{seconds, spent: {part: seconds}, stages, held}`. The learner is always at one thing:
 * it updates, hands over weights, runs guards, or waits; and while it waits, the trainer either samples or does nothing
 * at all, which is `seconds.idle`: then what it waits for is outside.
 */
export function timing(rows, info) {
  const [group] = grouped(rows, 1);
  if (!group) return null;
  const counted = group.seconds === null ? rows.slice(1) : rows;
  const seconds = group.seconds ?? rows.at(-1).elapsed_s - rows[0].elapsed_s;
  if (!counted.length || !(seconds > 0)) return null;
  const total = (read) => sum(counted.map((row) => read(row) ?? 0));
  const of = (what) => total((row) => row.seconds?.[what]);
  const outside = Math.min(of("idle"), of("waiting"));
  const spent = {
    sampling: of("waiting") - outside,
    outside,
    updating: of("updating"),
    guarding: of("guarding"),
    syncing: of("syncing"),
  };
  spent.other = Math.max(0, seconds - sum(Object.values(spent)));
  const stalled = {};
  for (const row of counted) {
    for (const [part, length] of Object.entries(row.stalled ?? {})) stalled[part] = (stalled[part] ?? 0) + length;
  }
  const judge = (what) => total((row) => row.judge?.[what]);
  const trained = total((row) => row.cohorts);
  const stage = (name, cohorts, busy = null, note = null) => ({
    name,
    rate: cohorts / seconds,
    busy: busy === null ? null : busy / seconds,
    alone: busy ? cohorts / busy : null,
    note,
  });
  const answers = { verdicts: judge("verdicts") / seconds, tokens: judge("tokens") / seconds };
  return {
    seconds,
    steps: counted.length,
    spent,
    held: heldUpBy(spent, seconds, stalled, info),
    stages: {
      sampling: stage("Sample rollouts", total(ended), of("sampling")),
      outside: stage("Judge", judge("cohorts"), null, answers),
      updating: stage("Update", trained, of("updating")),
      syncing: stage("Weights to the engine", trained, of("syncing")),
    },
  };
}

/** `{part, name, share}`: what the run would be faster without. */
function heldUpBy(spent, seconds, stalled, info) {
  const waits = (spent.sampling + spent.outside) / seconds;
  const open = Object.entries(spent).filter(([part]) => waits >= IDLE || !["sampling", "outside"].includes(part));
  const [part, length] = open.reduce((most, each) => (each[1] > most[1] ? each : most));
  const [long] = Object.entries(stalled).sort((one, other) => other[1] - one[1]);
  const names = {
    sampling: "sampling rollouts",
    outside: long ? `the ${long[0]}`.replace("the redis", "Redis") : outsiders(info),
    updating: "the update itself",
    guarding: "the drift guards",
    syncing: "handing weights to the engine",
    other: "checkpoints and the rest",
  };
  return { part, name: names[part], share: length / seconds };
}

function outsiders(info) {
  return info.rewrites ? "the judges or the rewrites" : "the judges";
}
