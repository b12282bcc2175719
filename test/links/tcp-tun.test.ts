/** Our TCP on the `tun` link against the kernel's. */
import { tunPlan } from "./link-plans.ts";
import { describeTcp } from "./tcp-suite.ts";

describeTcp(tunPlan);
