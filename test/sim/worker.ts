// A process that plays histories for player.ts.
import { type Order, play } from './player.ts';

process.on('message', (order: Order) => void play(order).then((outcome) => process.send?.(outcome)));
// Nobody is left to play for.
process.on('disconnect', () => process.exit());
