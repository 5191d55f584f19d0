// A drive on a file system that is read-only. Argument: an empty folder. To be run with mounts of its own.
import assert from 'node:assert/strict';
import { attndrive } from '../tools/command-line.ts';
import { run } from './own-mounts.ts';

const [, , folder = ''] = process.argv;
const capacities = ['--block-capacity', '1MiB', '--kv-capacity', '1MiB'];
const { status, stderr } = attndrive(['format', `${folder}/drive`, ...capacities]);
assert.equal(status, 0, stderr);
run('mount', '--bind', folder, folder);
run('mount', '-o', 'remount,ro,bind', folder);
for (const command of [
  ['start', `${folder}/drive`, '--tcp', 'off', '--http', 'off'],
  ['format', `${folder}/drive`, ...capacities, '--force'],
  ['format', `${folder}/other`, ...capacities],
]) {
  const result = attndrive(command);
  assert.equal(result.status, 1, `${command.join(' ')}: ${result.stderr}`);
  const [line = '', ...more] = result.stderr.trim().split('\n');
  assert.deepEqual(more, [], result.stderr);
  assert.match(line, /^attndrive: .*: its file system is read-only, and a drive writes even where it is only read$/);
}
