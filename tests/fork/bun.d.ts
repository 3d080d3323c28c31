// As much of Bun as the fakes use.
declare module "bun:sqlite" {
  export class Database {
    constructor(path: string, options?: object);
    run(sql: string): void;
  }
}
