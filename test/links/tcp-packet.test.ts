/** Our TCP on the `packet` link against the kernel's. */
import { packetPlan } from "./link-plans.ts";
import { describeTcp } from "./tcp-suite.ts";

describeTcp(packetPlan);
