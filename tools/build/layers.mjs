// The order of the rooms: each imports only from levels below its own. `.oxlintrc.json` carries it as import rules
// (`node tools/build/lint-config.mjs --write` puts them there).

/** Folders under daemon/, lowest first; those of one level don't know each other. */
export const daemonLevels = [
  ['base'],
  ['kernels', 'profiles', 'hosts'],
  ['timing'],
  ['nand', 'meta'],
  ['ftl'],
  ['kv'],
  ['attention', 'image'],
  ['commands'],
  ['controller', 'discovery'],
  ['transport', 'admin'],
];

const outside = (folders) => ({
  regex: `^(\\.\\./)+(${folders.join('|')})/`,
  message: 'Rooms import downwards only: the order stands in tools/build/layers.mjs.',
});

const override = (files, patterns) => ({ files, rules: { 'no-restricted-imports': ['error', { patterns }] } });

/** Overrides of `.oxlintrc.json` that enforce the order. */
export function layerOverrides() {
  const overrides = [
    override(
      ['spec/**/*.ts'],
      [
        { regex: '^[^.]', message: 'spec/ imports nothing but itself: it must load anywhere.' },
        outside(['daemon', 'client', 'tools', 'test']),
      ],
    ),
    override(['client/**/*.ts'], [outside(['daemon', 'tools', 'test'])]),
    override(['tools/**/*.ts'], [outside(['test'])]),
    override(['tools/model/**/*.ts'], [outside(['daemon', 'test'])]),
  ];
  daemonLevels.forEach((level, index) => {
    for (const room of level) {
      const forbidden = daemonLevels
        .slice(index)
        .flat()
        .filter((other) => other !== room);
      const patterns = [outside(['client', 'tools', 'test'])];
      if (forbidden.length > 0) patterns.push(outside(forbidden));
      overrides.push(override([`daemon/${room}/**/*.ts`], patterns));
    }
  });
  return overrides;
}
