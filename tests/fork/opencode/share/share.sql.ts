import { integer, sqliteTable, text } from "drizzle-orm/sqlite-core";

export const SessionShareTable = sqliteTable("session_share", {
  session_id: text("session_id").primaryKey(),
  id: text("id").notNull(),
  secret: text("secret").notNull(),
  url: text("url").notNull(),
  time_created: integer("time_created").notNull().$default(() => Date.now()),
  time_updated: integer("time_updated").notNull().$onUpdate(() => Date.now()),
});
