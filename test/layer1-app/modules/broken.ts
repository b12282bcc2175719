/** A handler module of modules.test.ts that cannot be loaded. */
throw new Error("no such database");
