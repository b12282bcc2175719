/** A handler module of modules.test.ts that has no handlers. */
export const something = 1;
