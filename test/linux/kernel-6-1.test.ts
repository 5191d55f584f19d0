import { linuxSuite } from './linux-suite.ts';

linuxSuite('6.1');
