/** Our TCP on the `xdp` link against the kernel's. */
import { xdpPlan } from "./link-plans.ts";
import { describeTcp } from "./tcp-suite.ts";

describeTcp(xdpPlan);
