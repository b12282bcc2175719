/** A handler module of modules.test.ts whose handler is no function. */
export const request = "hello";
